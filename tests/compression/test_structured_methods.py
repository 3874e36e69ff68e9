"""Methods that know about blocks, heads, units, filters and branches: by hand, and on digits."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from espalier.compression import Compressor, Recipe, compress
from espalier.compression.methods import (
    Besa,
    IdentityPrior,
    MultiLevel,
    Probabilistic,
    Recycle,
)
from espalier.compression.methods.besa import rank, spread
from espalier.compression.methods.identity_prior import bounded
from espalier.compression.methods.probabilistic import relaxed_slope
from espalier.compression.methods.recycle import recycled
from espalier.compression.patterns import ColumnBalanced, FineGrained, Groups, KOfN
from espalier.errors import InputError, RecipeError

torch.set_num_threads(1)


def recipe(**changes):
    return Recipe(**{"density": 0.5, "pattern": "fine-grained", "arithmetic": "float"} | changes)


def train(model, wishes, batches, loss, steps, rate=0.05):
    torch.manual_seed(0)
    return compress(model, wishes, batches=batches, loss=loss, steps=steps, learning_rate=rate)


def resumes(model, wishes, batches, loss, steps, folder):
    """Whether a run stopped half-way continues to the same result."""

    class Stop(Exception):
        pass

    def interrupt(done, total, value):
        if done == steps // 2:
            raise Stop

    whole = train(model, wishes, batches, loss, steps)
    options = {"batches": batches, "loss": loss, "steps": steps, "learning_rate": 0.05}
    options |= {"checkpoint": folder / "run.pt", "checkpoint_every": 1}
    torch.manual_seed(0)
    with pytest.raises(Stop):
        compress(model, wishes, progress=interrupt, **options)
    torch.manual_seed(5)
    resumed = compress(model, wishes, **options)
    pairs = zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def test_groups_keep_as_many_in_each_band():
    score = torch.tensor([[9.0, 1, 0, 5], [0, 1, 0, 5], [0, 3, 3, 0], [1, 0, 1, 0]])
    kept = Groups(size=2).mask(score, 0.5)
    assert kept.int().tolist() == [[1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]]
    odd = Groups(size=2).mask(score[:3], 0.25)  # the last band has one row
    assert odd.int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]]
    with pytest.raises(RecipeError, match="at least one row"):
        Groups(size=0)
    with pytest.raises(RecipeError, match=r"at least 0\.125, not 0\.01"):
        compress(nn.Linear(4, 4), recipe(pattern=Groups(2), density=0.01), calibration=[score])


def encoder_layer():
    """4 wide, heads of 2, three feed-forward units; head 1 and units 0 and 2 have the weight."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=True).eval()
    head, unit = torch.tensor([0.1, 0.1, 1, 1]), torch.tensor([1, 0.1, 1])
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(head.repeat(3)[:, None].expand(12, 4))
        layer.self_attn.out_proj.weight.copy_(head.expand(4, 4))
        layer.linear1.weight.copy_(unit[:, None].expand(3, 4))
        layer.linear2.weight.copy_(unit.expand(4, 3))
    return layer


def test_heads_and_units_go_on_both_sides():
    method = MultiLevel(heads=0.5, rows=2 / 3, head_size=2)
    layers = {"self_attn": {"density": 0.5}, "linear?": {"density": 2 / 3}}
    small = compress(
        encoder_layer(), recipe(method=method, layers=layers), calibration=[torch.randn(2, 3, 4)]
    )
    head, unit = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 0, 1])
    kept = {name: value != 0 for name, value in small.named_parameters() if value.dim() == 2}
    assert torch.equal(
        kept["self_attn.in_proj_weight"].int(), head.repeat(3)[:, None].expand(12, 4)
    )
    assert torch.equal(kept["self_attn.out_proj.weight"].int(), head.expand(4, 4))
    assert torch.equal(kept["linear1.weight"].int(), unit[:, None].expand(3, 4))
    assert torch.equal(kept["linear2.weight"].int(), unit.expand(4, 3))


def test_the_third_level_thins_what_heads_leave():
    method = MultiLevel(heads=0.5, rows=2 / 3, head_size=2)
    small = compress(
        encoder_layer(),
        recipe(method=method, density=1 / 4, pattern=ColumnBalanced(lanes=2)),
        calibration=[torch.randn(2, 3, 4)],
    )
    query, _, _ = small.self_attn.in_proj_weight.chunk(3)
    assert not query[:2].any() and (query[2:] != 0).sum() == 4  # of 16; the head has 8
    assert next(m.density for m in small.espalier_report.matrices) == pytest.approx(1 / 4)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_published_blocks_are_known(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "bert":
        model = transformers.BertModel(
            transformers.BertConfig(
                vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=16,
            )
        )  # fmt: skip
        made, taken = (
            "encoder.layer.1.attention.self.query",
            "encoder.layer.1.attention.output.dense",
        )
    else:
        model = transformers.GPT2Model(
            transformers.GPT2Config(
                vocab_size=20, n_embd=8, n_layer=2, n_head=4, n_inner=16, use_cache=False
            )
        )
        made, taken = "h.1.attn.c_attn", "h.1.attn.c_proj"
    method = MultiLevel(heads=0.5, rows=0.5, head_size=2)
    small = compress(
        model.eval(), recipe(method=method, density=0.5, layers={"pooler*": {"density": 1.0}}
                             if kind == "bert" else {}),
        calibration=[{"input_ids": torch.arange(8)[None]}],
    )  # fmt: skip
    maker, taker = (small.get_submodule(name).weight for name in (made, taken))
    rows = (maker if kind == "bert" else maker.T.chunk(3)[0]).any(1)
    columns = (taker if kind == "bert" else taker.T).any(0)
    assert torch.equal(rows, columns) and rows.sum() == 4
    assert rows.view(4, 2).all(1).sum() == 2  # whole heads


def test_multi_level_says_what_it_cannot():
    with pytest.raises(RecipeError, match="none of its matrices is called like those of BERT"):
        compress(nn.Linear(4, 4), recipe(method="multi-level"), calibration=[torch.ones(1, 4)])
    with pytest.raises(RecipeError, match=r"heads of 3 must divide 4; give MultiLevel\(head_size"):
        compress(
            encoder_layer(),
            recipe(method=MultiLevel(head_size=3)),
            calibration=[torch.ones(1, 2, 4)],
        )
    with pytest.raises(RecipeError, match="heads must be above 0 and at most 1, not 0"):
        MultiLevel(heads=0)


def test_the_slope_of_the_odds_by_hand(make_weight):
    """Two candidates of equal odds, one to keep: p = 1/2 each, u = (1, -1), mean 0."""
    weight = make_weight([[1.0, 1.0]])
    sample, u, mask = torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), torch.tensor([[True, False]])
    assert relaxed_slope(weight, sample, u, mask).tolist() == [[0.5, -0.5]]
    neighbours = make_weight([[1.0, 1.0, 1.0, 1.0]], KOfN(1, 2))
    slope = relaxed_slope(neighbours, sample.repeat(1, 2), u.repeat(1, 2), mask.repeat(1, 2))
    assert slope.tolist() == [[0.5, -0.5, 0.5, -0.5]]
    lanes = make_weight([[1.0], [1.0], [1.0]], ColumnBalanced(lanes=2))  # lane 0 has rows 0 and 2
    slope = relaxed_slope(
        lanes, torch.zeros(3, 1), torch.tensor([[1.0], [7.0], [-1.0]]),
        torch.tensor([[True], [True], [False]]),
    )  # fmt: skip
    assert slope.flatten().tolist() == [0.5, 0.0, -0.5]


def test_samples_follow_the_odds():
    """One of two is kept: the odds of weights 3 and 1 are 3 to 1."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, 1.0]])
    compressor = Compressor(model, recipe(method=Probabilistic(rate=0.0)), 10**6)
    first = []
    for _ in range(2000):
        first.append(bool(compressor.run.weights[0].mask[0, 0]))
        compressor.step()
    assert sum(first) / 2000 == pytest.approx(0.75, abs=0.03)  # three standard deviations


def test_odds_find_the_weight_that_matters():
    """Magnitude says the first; the data say the second."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    y = x @ torch.tensor([[0.3], [2.0]])
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.5]])
    small = train(
        model, recipe(method="probabilistic"), [x], lambda m, b: (m(b) - y).square().mean(), 200
    )
    assert small.weight.tolist()[0] == pytest.approx([0, 2], abs=0.05)


class Two(nn.Module):
    """Two matrices side by side; the second counts a hundredth."""

    def __init__(self):
        super().__init__()
        self.loud, self.quiet = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)

    def forward(self, x):
        return self.loud(x) + 0.01 * self.quiet(x)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Two(), Two()])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_densities_go_where_the_output_needs_them():
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    small = compress(Stack(), recipe(method=Besa(steps=100, rate=0.2)), calibration=[x])
    densities = [matrix.density for matrix in small.espalier_report.matrices]
    for loud, quiet in (densities[:2], densities[2:]):
        assert loud > 0.8 > 0.2 > quiet and loud + quiet == pytest.approx(1, abs=0.02)
    even = compress(Stack(), recipe(score="wanda", method="one-shot"), calibration=[x])
    assert {m.density for m in even.espalier_report.matrices} == {0.5}


def test_besa_loses_less_than_even_densities_on_each_pattern():
    torch.manual_seed(1)
    model, x = Stack(), torch.randn(64, 16)
    for pattern in ("fine-grained", ColumnBalanced(lanes=4)):
        errors = [
            (compress(model, recipe(score="wanda", pattern=pattern, method=method),
                      calibration=[x])(x) - model(x)).square().mean()
            for method in (Besa(steps=100, rate=0.2), "one-shot")
        ]  # fmt: skip
        assert errors[0] < 0.5 * errors[1]


def test_ranks_and_spread_by_hand():
    assert rank(torch.tensor([[3.0, 9.0], [1.0, 2.0]])).tolist() == [[0.25, 0.0], [0.75, 0.5]]
    found = spread(torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5]), 0.25)
    assert found.tolist() == pytest.approx([0.4, 0.1], abs=1e-4)
    found = spread(torch.tensor([0.8, 0.1]), torch.tensor([0.5, 0.5]), 0.6)  # the first is whole
    assert found.tolist() == pytest.approx([1.0, 0.2], abs=1e-4)
    with pytest.raises(RecipeError, match=r"blocks \('nothing',\) match no module"):
        compress(Stack(), recipe(method=Besa(blocks=("nothing",))), calibration=[torch.ones(1, 16)])


def test_small_filters_fade_into_the_others():
    """Rows of norms 3, 1, 5 with the second to go: it is the collector; odds are 3/8 and 5/8."""
    value = torch.tensor([[3.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    kept = torch.tensor([True, False, True])
    result = recycled(value, kept, rate=0.4, decay=0.25)
    assert result.tolist() == [
        [3.0, pytest.approx(0.15)], [0.0, 0.75], [3.0, pytest.approx(4.25)]
    ]  # fmt: skip
    assert torch.equal(recycled(value, torch.ones(3, dtype=torch.bool), 0.4, 0.25), value)
    with pytest.raises(RecipeError, match=r"rate must be in 0\.\.1, not 2"):
        Recycle(rate=2)


def test_filters_compute_until_they_are_dropped():
    torch.manual_seed(0)
    wishes = recipe(method=Recycle(), pattern="filters", prune_end=0.5, updates=5)
    compressor = Compressor(nn.Linear(4, 6), wishes, 10)
    (weight,) = compressor.run.weights
    before = weight.value.clone()
    for step in range(10):
        assert weight.mask.all() == (step < 5)
        compressor.step()
    assert weight.mask.any(1).sum() == 3 and not torch.equal(weight.value, before)


class Residual(nn.Module):
    """x + f(x) three times; what it is trained for needs the second f only."""

    def __init__(self, width=4):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"branch": nn.Linear(width, width)})
                                    for _ in range(3))  # fmt: skip
        for block in self.blocks:
            nn.init.zeros_(block["branch"].bias)

    def forward(self, x):
        for block in self.blocks:
            x = x + block["branch"](x)
        return x


def residual_task():
    torch.manual_seed(3)
    model, x = Residual(), torch.randn(64, 4)
    with torch.no_grad():
        for block, scale in zip(model.blocks, (0.05, 1.0, 0.05), strict=True):
            block["branch"].weight.copy_(scale * torch.eye(4).flip(0))
        y = x + x.flip(1)
    return model, [(x, y)], lambda m, b: (m(b[0]) - b[1]).square().mean()


def test_the_branch_that_does_something_stays():
    model, batches, loss = residual_task()
    wishes = recipe(method=IdentityPrior(bound=1.5), density=1 / 3)
    small = train(model, wishes, batches, loss, 60, rate=0.01)
    kept = [bool(block["branch"].weight.any()) for block in small.blocks]
    assert kept == [False, True, False]
    assert torch.linalg.matrix_norm(small.blocks[1]["branch"].weight, 2) <= 1.5 + 0.1
    assert loss(small, batches[0]) < 0.05
    assert not small.blocks[1]["branch"]._forward_hooks


def test_the_prior_is_the_mean_function_norm_and_matrices_are_bounded():
    """Branches 0.5·(flip) of three ones: outputs of 0.5, 0.75 and 1.125 everywhere."""
    model, _, _ = residual_task()
    for block in model.blocks:
        block["branch"].weight.data = torch.eye(4).flip(0)
    wishes = recipe(method=IdentityPrior(bound=0.5, strength=0.1), density=1 / 3)
    compressor = Compressor(model, wishes, 10)
    x = torch.ones(2, 4)
    out = compressor.model.train()(x)
    loss = compressor.loss(torch.tensor(1.0), x, out)
    assert loss.item() == pytest.approx(1.0 + 0.1 * (0.5 + 0.75 + 1.125) / 3)


def test_identity_prior_needs_its_branches():
    model, batches, loss = residual_task()
    with pytest.raises(RecipeError, match=r"branches \('\*.f',\) match no module; there are: bl"):
        train(model, recipe(method=IdentityPrior(branches=("*.f",))), batches, loss, 2)
    unused = lambda m, b: m.blocks[0]["branch"](b[0]).square().mean()  # noqa: E731
    called = lambda m, b: unused(m, b) + 0 * m(b[0]).sum()  # noqa: E731
    train(model, recipe(method=IdentityPrior()), batches, called, 2)
    model.blocks.append(nn.ModuleDict({"branch": nn.Linear(4, 4)}))
    model.forward = lambda x: model.blocks[0]["branch"](x)
    with pytest.raises((InputError, RecipeError)):
        train(model, recipe(method=IdentityPrior()), batches, loss, 2)


def test_spectral_norm_is_bounded():
    value = torch.diag(torch.tensor([4.0, 1.0]))
    assert bounded(value, 2.0).diagonal().tolist() == pytest.approx([2.0, 0.5])
    assert torch.equal(bounded(value, 5.0), value)
    assert torch.equal(bounded(torch.zeros(2, 2), 1.0), torch.zeros(2, 2))


@pytest.mark.parametrize("kind", ["multi-level", "identity-prior"])
def test_runs_resume_to_the_same_result(kind, tmp_path):
    if kind == "identity-prior":
        model, batches, loss = residual_task()
        wishes = recipe(method=IdentityPrior(), density=1 / 3, updates=5)
    else:
        model, x = encoder_layer(), torch.randn(4, 3, 4)
        batches, loss = [x], lambda m, b: (m(b) - b).square().mean()
        wishes = recipe(method=MultiLevel(head_size=2), density=0.25, updates=5)
    assert resumes(model, wishes, batches, loss, 12, tmp_path)


class ConvReader(nn.Module):
    """Digits 8 x 8: a convolution, two residual branches, a classifier."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.first = nn.ModuleDict({"branch": nn.Conv2d(width, width, 3, padding=1)})
        self.second = nn.ModuleDict({"branch": nn.Conv2d(width, width, 3, padding=1)})
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        for block in (self.first, self.second):
            x = functional.max_pool2d(x + functional.relu(block["branch"](x)), 2)
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def digits():
    """A convolutional reader of scikit-learn's digits, batches, and what it is measured on."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    seen, unseen = order[:1300], order[1300:]
    batches = [(x[i], y[i]) for i in seen.split(100)]
    torch.manual_seed(0)
    dense = Recipe(density=1.0, arithmetic="float")
    model = compress(
        ConvReader(), dense, batches=batches, loss=digit_loss, epochs=12, learning_rate=1e-2
    )
    return model, batches, lambda m: (m(x[unseen]).argmax(1) == y[unseen]).float().mean().item()


def digit_loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def test_filters_of_a_network_for_digits_go(digits):
    """A quarter of the filters of both branches: recycled ones against cut at once, retrained."""
    model, batches, accuracy = digits
    layers = {"*.branch": {"density": 0.25, "pattern": "filters"}}
    whole = recipe(density=1.0, layers=layers)
    results = {}
    for method in (Recycle(), "one-shot"):
        small = train(
            model, Recipe(**{**vars(whole), "method": method}), batches, digit_loss, 130, 5e-3
        )
        filters = small.first["branch"].weight.flatten(1).any(1)
        assert filters.sum() == 4
        results[method] = accuracy(small)
    assert accuracy(model) > 0.95
    assert min(results.values()) > 0.93, results


def test_a_branch_of_a_network_for_digits_goes(digits):
    model, batches, accuracy = digits
    wishes = recipe(density=1.0, layers={"*.branch": {"density": 0.5}}, method=IdentityPrior())
    small = train(model, wishes, batches, digit_loss, 130, 5e-3)
    kept = [bool(block["branch"].weight.any()) for block in (small.first, small.second)]
    assert sum(kept) == 1 and accuracy(small) > 0.9


def test_odds_prune_a_network_for_digits(digits):
    model, batches, accuracy = digits
    layers = {"*.branch": {"density": 0.25, "pattern": "fine-grained"}}
    wishes = recipe(density=1.0, layers=layers, method=Probabilistic())
    small = train(model, wishes, batches, digit_loss, 130, 5e-3)
    assert (small.first["branch"].weight != 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert accuracy(small) > 0.93


def test_parts_print_themselves():
    text = recipe(method=Besa(steps=3), pattern=Groups(4)).to_json()
    assert "Besa(blocks=(), steps=3" in text and "Groups(size=4)" in text
    assert isinstance(FineGrained(), FineGrained)
