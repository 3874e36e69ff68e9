"""A recipe's rounding at work: how scales are found, learned, kept in checkpoints and compiled."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import espalier
from espalier.compression import Compressor, Recipe, compress
from espalier.compression.calibration import calibrate
from espalier.compression.ranges import LeastError
from espalier.errors import RecipeError
from espalier.quantized.learned import LearnedScales
from espalier.spec.config import TINY

torch.set_num_threads(1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.rnn = nn.Linear(6, 8), nn.GRU(8, 12, batch_first=True)
        self.hidden, self.head = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.rnn(torch.relu(self.embed(x)))[0][:, -1]
        return self.head(torch.relu(self.hidden(y)))


def make_batches(count=4):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, 16, 5, 6, generator=generator)
    return [(part, part.sum(1)[:, :3].argmax(1)) for part in x]


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


BATCHES = make_batches()
CALIBRATION = [batch[0] for batch in BATCHES]
LEARNED = {"weight_scales": "learned", "activation_scales": "learned"}


def weight_errors(search):
    """Squared errors of a 4-bit layer's weights, and of its results; one input is loud."""
    torch.manual_seed(3)
    layer, x = nn.Linear(16, 8), torch.randn(200, 16)
    x[:, 2] *= 20
    recipe = Recipe(density=1.0, weight_scales=search)
    small = compress(layer, recipe, calibration=[x])
    rounded = torch.from_numpy(small.integer().matrix.weight).float() * small.weight_scale[:, None]
    difference = rounded - layer.weight.detach()
    return difference.square().sum().item(), (x @ difference.T).square().sum().item()


def test_each_search_is_best_at_what_it_searches():
    weights, results = zip(*map(weight_errors, ("max", "error", "output")), strict=True)
    assert weights[1] < min(weights[0], weights[2])
    assert results[2] < min(results[0], results[1])


def test_output_search_reaches_grus_and_masked_floats():
    for arithmetic in ("machine", "weights"):
        parts = {}
        for search in ("error", "output"):
            recipe = Recipe(density=1.0, weight_scales=search, arithmetic=arithmetic)
            small = compress(Model(), recipe, calibration=CALIBRATION)
            parts[search] = small(CALIBRATION[0]).detach()
        assert not torch.equal(parts["error"], parts["output"])


def test_clipped_activations_have_finer_steps():
    x = [torch.cat([torch.linspace(0, 1, 9999)[:, None], torch.full((1, 1), 50.0)])]
    scales = {}
    for name, percentile in (("max", 100.0), ("percentile", 99.0), ("mse", 100.0)):
        recipe = Recipe(density=1.0, activation_scales=name, percentile=percentile)
        small = compress(nn.Linear(1, 2), recipe, calibration=x)
        scales[name] = float(small.input_scale) * 127
    assert 50 <= scales["max"] < 50.5 and 0.9 < scales["percentile"] < 1.1
    assert scales["percentile"] < scales["mse"] < 49
    model = compress(nn.Linear(1, 2), Recipe(density=1.0), calibration=x)
    model.input_scale.zero_()
    calibrate(model, x, LeastError)
    assert float(model.input_scale) * 127 == scales["mse"]


@pytest.mark.parametrize("arithmetic", ["machine", "weights"])
def test_scales_learn_what_inputs_see(arithmetic):
    """Weights stay, the bias is free for both, one input is loud: what is gained is the scales'."""
    torch.manual_seed(3)
    layer, x = nn.Linear(16, 8), torch.randn(200, 16)
    x[:, 2] *= 20
    layer.weight.requires_grad_(False)
    target, errors = layer(x).detach(), {}

    def distance(model, batch):
        return functional.mse_loss(model(batch), target)

    for search in ("error", "learned"):
        recipe = Recipe(density=1.0, weight_scales=search, prune_end=0.05, arithmetic=arithmetic)
        small = compress(layer, recipe, batches=[x], loss=distance, epochs=60)
        errors[search] = distance(small, x).item()
        assert not [name for name in small.state_dict() if "log_" in name]
    assert errors["learned"] < 0.75 * errors["error"]


def test_scales_are_fitted_until_the_pattern_is_fixed_then_learned_and_kept():
    recipe = Recipe(density=0.5, prune_end=0.5, updates=3, config=TINY, **LEARNED)
    compressor = Compressor(Model(), recipe, 8)
    model = compressor.model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inner, fitted = {}, None
    for step in range(8):
        outputs = model(BATCHES[step % 4][0])
        optimizer.zero_grad()
        functional.cross_entropy(outputs, BATCHES[step % 4][1]).backward()
        assert (model.head.log_weight_scale.grad is not None) is (step >= 4)
        optimizer.step()
        compressor.step()
        inner[step] = model.head.weight_scale.clone(), model.head.input_scale.clone()
        assert model.hidden.output_scale == model.head.input_scale / 256
        fitted = inner[step] if step == 4 else fitted
    assert model.hidden.input_scale == 2.0**-7  # of a state
    assert not torch.equal(inner[7][0], fitted[0]) and inner[7][1] != fitted[1]
    small = compressor.finish()
    assert torch.equal(small.head.weight_scale, inner[7][0])
    at_once = compress(Model(), recipe, calibration=CALIBRATION)
    at_once.load_state_dict(small.state_dict())
    assert torch.equal(at_once(CALIBRATION[0]), small(CALIBRATION[0]))


def test_an_interrupted_run_learns_the_same_scales(tmp_path):
    recipe = Recipe(density=0.5, prune_end=0.4, updates=2, config=TINY, **LEARNED)

    def train(path, progress=None):
        torch.manual_seed(1)
        return compress(
            Model(), recipe, batches=BATCHES, loss=loss, epochs=3, checkpoint=path,
            checkpoint_every=1, progress=progress,
        )  # fmt: skip

    def stop(done, total, value):
        if done == 8:
            raise KeyboardInterrupt

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop)
    resumed = train(tmp_path / "cut")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_learned_scales_compile():
    recipe = Recipe(density=0.5, config=TINY, delta_threshold=2, **LEARNED)
    small = compress(Model(), recipe, batches=BATCHES, loss=loss, epochs=5)
    x = CALIBRATION[0][:1]
    program = espalier.compile(small, x, config=TINY)
    with espalier.open("reference") as device:
        result = device.load(program).run(x.numpy())
    # One step of the 16-bit results; a rounding of one state can move them by a few.
    step = float(small.head.output_scale)
    assert np.abs(result - small(x).detach().numpy()).max() <= 64 * step
    assert not any(m.learning for m in small.modules() if isinstance(m, LearnedScales))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"weight_scales": "best"},
            "weight_scales must be one of: max, error, output, learned; not",
        ),
        (
            {"activation_scales": 3},
            "activation_scales must be one of: max, percentile, mse, learned",
        ),
        ({"activation_scales": "mse", "percentile": 99.0}, 'must be "percentile" for a percentile'),
        ({"smoothing": "a"}, "smoothing must be a number, not 'a'"),
        ({"delta_penalty": True}, "delta_penalty must be a number, not True"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(**options)


def test_an_output_search_needs_data():
    with pytest.raises(RecipeError, match='"output" needs sample inputs: give calibration='):
        compress(Model(), Recipe(weight_scales="output"), batches=BATCHES, loss=loss)
