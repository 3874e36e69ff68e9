"""Bits by sensitivity: greedy under a budget, by hand, and on a model with one fine layer."""

import pytest
import torch
from torch import nn

from espalier.compression import Recipe, compress
from espalier.compression.bits import BitSensitivity, bit_sensitivity, choose_bits, set_bits
from espalier.errors import RecipeError
from espalier.spec.config import TINY

torch.set_num_threads(1)


def case(name, entries, loss_4, loss_8=1.0):
    return BitSensitivity(name=name, entries=entries, loss_4=loss_4, loss_8=loss_8)


CASES = [case("a", 100, 1.5), case("b", 10, 1.2), case("c", 40, 1.1), case("d", 20, 0.9)]
"""Gains for an entry: 0.005, 0.02, 0.0025, below 0; 170 entries at 4 bits."""


@pytest.mark.parametrize(
    "entries, eight",
    [
        (170, ""),
        (179, ""),
        (180, "b"),
        (279, "bc"),  # a is next but does not fit beside b, c does
        (280, "ab"),
        (10_000, "abc"),  # d gains nothing
        (None, "abc"),  # TINY holds 2,048 entries
    ],
)
def test_what_gains_most_for_an_entry_is_first(entries, eight):
    bits = choose_bits(CASES, entries, TINY)
    assert "".join(name for name, value in bits.items() if value == 8) == eight


def test_a_budget_that_four_bits_exceed_is_refused():
    with pytest.raises(
        RecipeError, match="entries must be at least 170, what 4 bits take, not 169"
    ):
        choose_bits(CASES, 169)


def make_model():
    """The second layer's weights are rough: levels of 4 bits hold them exactly; the first's not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.randint(-7, 8, (4, 8)) / 7.0)
        model[2].weight[:, 0] = 1
    return model


X = torch.randn(100, 8, generator=torch.Generator().manual_seed(5))


def make_small(bits=8):
    recipe = Recipe(density=1.0, weight_bits=bits, config=TINY)
    return compress(make_model(), recipe, calibration=[X])


def test_the_layer_that_four_bits_hurt_gets_eight():
    small = make_small(4)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    found = {each.name: each for each in bit_sensitivity(small, [X], config=TINY)}
    assert [(each.name, each.entries) for each in found.values()] == [
        ("0.weight", 64), ("2.weight", 32),
    ]  # fmt: skip
    assert found["0.weight"].gain > 0
    assert found["2.weight"].loss_4 < found["0.weight"].loss_4 / 10
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    bits = choose_bits(list(found.values()), 160)
    assert bits == {"0.weight": 8, "2.weight": 4}


def test_the_loss_can_be_the_tasks():
    target = make_model()(X).detach()

    def loss(model, batch):
        return (model(batch) - target).abs().mean()

    first, second = bit_sensitivity(make_small(), [X], loss)
    small = make_small()
    assert first.loss_8 == second.loss_8 == loss(small, X).item()
    set_bits(small, {"0.weight": 4})
    assert loss(small, X).item() == first.loss_4
    again = make_small(4)
    set_bits(again, {"2.weight": 8})
    assert torch.equal(small(X), again(X))
    assert [m.weight_bits for m in small.espalier_report.matrices] == [4, 8]


def test_a_model_that_was_not_compressed_is_refused():
    with pytest.raises(RecipeError, match="one that compress returned"):
        bit_sensitivity(make_model(), [X])
    with pytest.raises(
        RecipeError, match=r"'1.weight' is no compressed matrix; there are: 0.weight"
    ):
        set_bits(make_small(), {"1.weight": 4})
