"""Methods, step by step by hand and on problems whose answer is known."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier
from espalier.compression import Compressor, Recipe, compress
from espalier.compression.methods import (
    METHODS,
    Admm,
    Gradual,
    LeastSquares,
    OneShot,
    SparseGpt,
    SrSte,
    make_method,
)
from espalier.compression.patterns import FineGrained, UniformK
from espalier.errors import RecipeError


def recipe(**changes):
    return Recipe(**{"density": 0.5, "pattern": "fine-grained", "arithmetic": "float"} | changes)


class Regression:
    """Two inputs, one weight may stay. Magnitude says the first; the data say the second."""

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    y = x @ torch.tensor([[0.3], [2.0]])

    @classmethod
    def model(cls):
        model = nn.Linear(2, 1, bias=False)
        model.weight.data = torch.tensor([[1.0, 0.5]])
        return model

    @classmethod
    def train(cls, steps=100, rate=0.1, **changes):
        compressor = Compressor(cls.model(), recipe(updates=steps, **changes), steps)
        optimizer = torch.optim.SGD(compressor.model.parameters(), rate)
        for _ in range(steps):
            out = compressor.model(cls.x)
            loss = compressor.loss((out - cls.y).square().mean(), cls.x, out)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            compressor.step()
        return compressor.finish()


@pytest.mark.parametrize("method", ["gradual", "sr-ste", "admm", "admm-sr-ste"])
def test_training_finds_the_weight_that_matters(method):
    assert Regression.train(method=method).weight.tolist()[0] == pytest.approx([0, 2], abs=0.01)


def test_movement_finds_it_too():
    model = Regression.train(method="gradual", score="movement")
    assert model.weight.tolist()[0] == pytest.approx([0, 2], abs=0.01)


def test_one_shot_stays_with_what_was_large_at_first():
    """The best single first weight: 0.3, the inputs being uncorrelated."""
    assert Regression.train(method="one-shot").weight.tolist()[0] == pytest.approx(
        [0.3, 0], abs=1e-3
    )


def test_densities_on_the_way():
    assert Gradual().density(0.2, 0.0) == 1.0
    assert Gradual().density(0.2, 0.5) == pytest.approx(0.2 + 0.8 / 8)
    assert Gradual().density(0.2, 1.0) == 0.2
    assert OneShot().density(0.2, 0.0) == SrSte().density(0.2, 0.0) == 0.2
    assert SrSte(ramp=0.5).density(0.2, 0.25) == pytest.approx(0.2 + 0.8 / 8)
    assert SrSte(ramp=0.5).density(0.2, 0.75) == 0.2


def test_sr_ste_decays_pruned_weights_only(make_weight):
    weight, method = make_weight([[3.0, -2.0]]), SrSte(decay=0.1)
    weight.set_mask(torch.tensor([[True, False]]))
    weight.frozen = False
    assert method.gradient(weight, torch.ones(1, 2)).tolist() == [[1.0, pytest.approx(0.8)]]
    weight.frozen = True
    assert method.gradient(weight, torch.ones(1, 2)).tolist() == [[1.0, 1.0]]


def test_admm_by_hand(make_weight):
    """Z = P(W + U), U = U + W - Z, gradient g + rho·(W - Z + U); one weight of two stays."""
    weight, method = make_weight([[3.0, 1.0]], FineGrained()), Admm(rho=0.5)
    weight.frozen = False

    def update(*value):
        weight.set_value(torch.tensor([value]))
        scored = method.scored(weight, False)
        method.apply(weight, weight.project(scored.abs(), 0.5), False)
        return [weight.state[name][0].tolist() for name in ("target", "dual")]

    assert update(3.0, 1.0) == [[3.0, 0.0], [0.0, 0.0]]
    assert method.gradient(weight, torch.zeros(1, 2)).tolist() == [[0.0, 0.5]]
    assert update(2.0, 1.5) == [[2.0, 0.0], [0.0, 1.5]]
    assert method.gradient(weight, torch.zeros(1, 2)).tolist() == [[0.0, 1.5]]
    assert update(1.0, 1.25) == [[0.0, 2.75], [1.0, 0.0]]
    assert weight.mask.all()  # the loss sees all weights until the end
    method.apply(weight, weight.project(method.scored(weight, True).abs(), 0.5), True)
    assert weight.mask.tolist() == [[False, True]]


def test_admm_with_sr_ste_masks_and_decays(make_weight):
    weight, method = make_weight([[3.0, 1.0]]), Admm(rho=0.5, masked=True, decay=0.1)
    weight.frozen = False
    method.apply(weight, torch.tensor([[True, False]]), False)
    assert weight.mask.tolist() == [[True, False]]
    assert method.gradient(weight, torch.zeros(1, 2))[0].tolist() == pytest.approx([0.0, 0.6])


@pytest.mark.parametrize("method", [SparseGpt(damping=1e-9), LeastSquares(damping=1e-9)], ids=repr)
def test_what_is_left_makes_up_for_what_goes(make_weight, method):
    """E[x0 x1] = 1/2 of E[x1^2]: half of the first weight moves to the second."""
    weight = make_weight([[1.0, 2.0], [4.0, 1.0]], FineGrained())
    weight.state["moment"] = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    mask = torch.tensor([[False, True], [True, True]])
    method.update(weight, weight.value.double(), mask)
    assert weight.value[0].tolist() == pytest.approx([0.0, 2.5])
    assert weight.value[1].tolist() == pytest.approx([4.0, 1.0])
    assert torch.equal(weight.mask, mask)


def layer_and_inputs():
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    layer = nn.Linear(24, 32)
    mixing = torch.randn(24, 24, generator=generator) * torch.linspace(0.1, 1, 24)
    return layer, torch.randn(400, 24, generator=generator) @ mixing.T


@pytest.mark.parametrize("arithmetic", ["float", "machine"])
def test_one_shot_methods_keep_more_of_the_output_in_order(arithmetic):
    """Magnitude, Wanda, SparseGPT on the hardware's pattern; correlated inputs of unequal size."""
    layer, x = layer_and_inputs()
    errors = {}
    for method, score in (("gradual", None), ("gradual", "wanda"), ("sparsegpt", None)):
        wishes = recipe(
            pattern="column-balanced",
            method=method,
            score=score,
            arithmetic=arithmetic,
            weight_bits=8,
        )
        small = compress(layer, wishes, calibration=[x])
        assert small.espalier_report.density == pytest.approx(0.5, abs=0.03)
        assert not small.espalier_report.padded
        errors[score or method] = float((small(x) - layer(x)).detach().square().mean())
    assert errors["sparsegpt"] < 0.8 * errors["wanda"] < 0.8 * errors["gradual"]


def test_least_squares_is_the_best_for_its_places():
    layer, x = layer_and_inputs()
    small = compress(layer, recipe(method=LeastSquares(damping=1e-9)), calibration=[x])
    kept = small.weight[0].detach() != 0
    best = torch.linalg.lstsq(x[:, kept], x @ layer.weight[0].detach()).solution
    assert torch.allclose(small.weight[0, kept], best, atol=1e-4)


def test_more_rounds_find_better_places():
    layer, x = layer_and_inputs()
    errors = []
    for rounds in (1, 4):
        wishes = recipe(density=0.2, method=LeastSquares(rounds=rounds))
        small = compress(layer, wishes, calibration=[x])
        assert int((small.weight != 0).sum()) == round(0.2 * 24 * 32)
        errors.append(float((small(x) - layer(x)).detach().norm()))
    assert errors[1] < 0.9 * errors[0]


def test_later_layers_are_fitted_to_what_pruned_ones_give():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    x = torch.randn(500, 16) @ (torch.randn(16, 16) * torch.linspace(0.1, 1, 16))
    errors = []
    for method in (LeastSquares(), LeastSquares(sequential=False)):
        small = compress(model, recipe(density=0.3, method=method), calibration=[x])
        hidden = small[:2](x)
        errors.append(float((small[2](hidden) - model[2](hidden)).detach().norm()))
    assert errors[0] < errors[1]


def test_one_shot_masks_are_kept_in_training_afterwards():
    layer, x = layer_and_inputs()
    wishes = recipe(method="sparsegpt", updates=3)
    compressor = Compressor(layer, wishes, 6, calibration=[x])
    before = compressor.model.weight != 0
    optimizer = torch.optim.SGD(compressor.model.parameters(), 0.1)
    for _ in range(6):
        loss = compressor.model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        compressor.step()
    assert torch.equal(compressor.finish().weight != 0, before)


NEED_BLOCKS = {"multi-level", "identity-prior"}
"""Methods that a single layer is not enough for; see test_structured_methods."""


@pytest.mark.parametrize("method", sorted({*METHODS, "movement"} - NEED_BLOCKS))
def test_every_method_resumes_to_the_same_result(tmp_path, method):
    """The state of methods and scores is in the checkpoint."""
    layer, x = layer_and_inputs()
    wishes = recipe(updates=4) if method == "movement" else recipe(method=method, updates=4)
    wishes = recipe(score="movement", updates=4) if method == "movement" else wishes
    batches = list(x.split(50))
    options = {"batches": batches, "loss": lambda m, b: m(b).square().mean(), "calibration": [x]}

    class Stop(Exception):
        pass

    def interrupt(done, total, loss):
        if done == 3:
            raise Stop

    torch.manual_seed(0)
    whole = compress(layer, wishes, **options)
    torch.manual_seed(0)
    options |= {"checkpoint": tmp_path / "run.pt", "checkpoint_every": 1}
    with pytest.raises(Stop):
        compress(layer, wishes, progress=interrupt, **options)
    resumed = compress(layer, wishes, **options)
    assert torch.equal(resumed.weight, whole.weight) and (whole.weight == 0).sum() == 384


@pytest.mark.parametrize(
    "wishes, options, message",
    [
        ({"method": "sr-ste"}, {"calibration": 1}, "method 'sr-ste' needs training: give batches="),
        ({"score": "movement"}, {"calibration": 1}, "score 'movement' needs training"),
        ({"score": "wanda"}, {"batches": 1}, "score 'wanda' needs sample inputs: give calibration"),
        ({"method": "sparsegpt"}, {"batches": 1}, "score 'second-order' needs sample inputs"),
        ({"pattern": "2:4", "density": 0.25}, {"calibration": 1}, "weight: density must be 2/4"),
    ],
)
def test_missing_needs_are_named(wishes, options, message):
    layer, x = layer_and_inputs()
    options = {key: [x] for key in options}
    if "batches" in options:
        options["loss"] = lambda m, b: m(b).square().mean()
    with pytest.raises(RecipeError, match=message):
        compress(layer, recipe(**wishes), **options)


def test_unknown_methods_are_refused():
    with pytest.raises(RecipeError, match="method must be one of: gradual, one-shot, sr-ste, admm"):
        make_method("magic")
    with pytest.raises(RecipeError, match="arithmetic must be machine, weights, float, not 'int'"):
        Recipe(arithmetic="int")


def test_a_part_of_ones_own_is_one_object():
    """The page on compression shows this score; a recipe with it works, and its text tells it."""
    page = (Path(__file__).parents[2] / "docs" / "compression.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "class Taylor" in b)
    names = {"espalier": espalier}
    exec(block, names)
    assert 'score": "Taylor(decay=0.9)"' in names["recipe"].to_json()
    assert Regression.train(score=names["Taylor"](), method="sr-ste").weight[0, 0] == 0


@pytest.mark.parametrize("pattern", [UniformK(lanes=1), FineGrained()])
def test_sparsegpt_chooses_again_by_adjusted_weights(make_weight, pattern):
    """One lane, a weight a column. Pruning 2 in row 0 raises its next weight from 1 to 2."""
    weight = make_weight([[2.0, 1.0], [3.0, 1.1]], pattern)
    weight.state["moment"] = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    mask = torch.tensor([[False, False], [True, True]])
    if isinstance(pattern, UniformK):
        assert torch.equal(weight.project(weight.value, 0.5), mask)
    SparseGpt(damping=1e-9).update(weight, weight.value.double(), mask)
    assert weight.mask.tolist() == [[False, True], [True, False]]
    assert weight.value.flatten().tolist() == pytest.approx([0, 2, 3, 0])
