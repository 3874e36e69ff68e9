"""Outlier folding: the float model stays bit for bit, the rounded one gets closer; else refused."""

import pytest
import torch
from torch import nn

from espalier.compression import Recipe, compress
from espalier.compression.smoothing import factors, fold_outliers
from espalier.errors import InputError, RecipeError

torch.set_num_threads(1)


def loud(linear: nn.Linear, channel: int = 3) -> nn.Linear:
    """One output channel 64 times as large as the others."""
    with torch.no_grad():
        linear.weight[channel] *= 64
    return linear


class Network(nn.Module):
    """Two branches behind one layer; `between` makes their input of its result."""

    def __init__(self, between=torch.relu, after=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.left, self.right = loud(nn.Linear(6, 8)), nn.Linear(8, 4), nn.Linear(8, 4)
        self.between, self.after = between, after or (lambda hidden, left, right: left + right)

    def forward(self, x):
        hidden = self.first(x)
        shared = self.between(hidden)
        return self.after(hidden, self.left(shared), self.right(shared))


X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def test_factors_are_the_papers_rounded_to_powers_of_two():
    largest = torch.tensor([16.0, 1.0, 0.0, 3.0, 100.0])
    weight = torch.tensor([[1.0, 0.25, 1.0, 0.0, 4.0], [-0.5, 0.1, 2.0, 0.0, -1.0]])
    # sqrt(16 / 1), sqrt(1 / 0.25), two without use, sqrt(100 / 4) = 5 -> 4
    assert factors(largest, weight, 0.5).tolist() == [4, 2, 1, 1, 4]
    assert factors(largest, weight, 1.0).tolist() == [16, 1, 1, 1, 128]
    assert factors(largest, weight, 0.0).tolist() == [1, 4, 1, 1, 0.25]


@pytest.mark.parametrize(
    "between",
    [torch.relu, lambda x: x.unsqueeze(1).transpose(0, 1)[0], nn.Dropout(0.5), nn.Identity()],
)
def test_results_stay_bit_for_bit_and_channels_level_out(between):
    model = Network(between).eval()
    folded = fold_outliers(model, [X, 3 * X])
    assert torch.equal(folded(X), model(X))
    before, after = (m.first(X).abs().amax(0) for m in (model, folded))
    assert before.max() / before.min() > 20 and after.max() / after.min() < 15
    assert not torch.equal(folded.left.weight, model.left.weight)


@torch.no_grad()
def test_rounding_costs_less():
    model = Network().eval()
    exact, errors = model(X), {}
    for smoothing in (0.0, 0.5):
        recipe = Recipe(density=1.0, weight_bits=8, smoothing=smoothing)
        small = compress(model, recipe, calibration=[X])
        errors[smoothing] = (small(X) - exact).square().mean().item()
    assert errors[0.5] < 0.5 * errors[0.0]


def test_a_layer_norm_and_a_gru_take_part():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(2)
            self.norm, self.rnn = nn.LayerNorm(6), nn.GRU(6, 5, bidirectional=True)
            nn.init.uniform_(self.norm.weight, 0.01, 10)

        def forward(self, x):
            return self.rnn(self.norm(x))[0]

    model, x = Chain().eval(), X.view(16, 4, 6)
    folded = fold_outliers(model, x, 0.7, layers=["rnn"])
    assert torch.equal(folded(x), model(x))
    ratio = folded.rnn.weight_ih_l0 / model.rnn.weight_ih_l0
    assert (ratio == ratio[0]).all() and not (ratio[0] == 1).all()
    assert torch.equal(
        ratio[0], (folded.rnn.weight_ih_l0_reverse / model.rnn.weight_ih_l0_reverse)[0]
    )
    assert torch.equal(model.norm.weight / folded.norm.weight, ratio[0])


@pytest.mark.parametrize(
    "between, after, reason",
    [
        (nn.functional.gelu, None, "not the result of one Linear or LayerNorm"),
        (lambda x: x[:, [3, 1, 2, 0, 4, 5, 6, 7]], None, "'first' is used elsewhere"),
        (torch.relu, lambda h, a, b: a + b + h[:, :4], "'first' is used elsewhere"),
    ],
)
def test_what_would_change_the_model_is_refused(between, after, reason):
    model = Network(between, after).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RecipeError, match=rf"where nothing changes .*left: .*{reason}"):
        fold_outliers(model, X, layers=["left"])
    with pytest.raises(RecipeError, match=rf"first: its input is not.*left: .*{reason}"):
        compress(model, Recipe(smoothing=0.5), calibration=[X])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_refused_group_leaves_no_trace_beside_a_folded_one():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.good, self.bad = Network(), Network(after=lambda h, a, b: a + b + h[:, :4])

        def forward(self, x):
            return self.good(x) + self.bad(x)

    model = Both().eval()
    folded = fold_outliers(model, X)
    assert torch.equal(folded(X), model(X))
    assert torch.equal(folded.bad.first.weight, model.bad.first.weight)
    assert not torch.equal(folded.good.first.weight, model.good.first.weight)


def test_states_cannot_be_divided():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(6, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    with pytest.raises(RecipeError, match="head: its input is not the result of one Linear"):
        fold_outliers(Chain(), X[:, None], layers=["head"])


def test_mistakes_are_named():
    with pytest.raises(RecipeError, match=r"smoothing must be in 0..1, not 2"):
        Recipe(smoothing=2)
    with pytest.raises(RecipeError, match=r"smoothing must be in 0..1, not -1"):
        fold_outliers(Network(), X, -1)
    with pytest.raises(
        RecipeError, match="'tail' matches no Linear or GRU; there are: first, left"
    ):
        fold_outliers(Network(), X, layers=["tail"])
    with pytest.raises(RecipeError, match="smoothing needs sample inputs"):
        compress(Network(), Recipe(smoothing=0.5), batches=[X], loss=lambda m, b: m(b).sum())
    with pytest.raises(InputError, match="must be finite"):
        fold_outliers(Network(), X * torch.nan)
