"""Orders of units: found by hand where that is possible, and folded without a trace."""

from itertools import permutations

import pytest
import torch
from torch import nn

import espalier
from espalier.compression import Recipe, compress
from espalier.compression.permutation import find_order, gate_scores, reorder
from espalier.errors import RecipeError
from espalier.spec.config import TINY


def test_units_that_compete_are_parted():
    """Rows 0 and 2 share lane 0 of 2 and matter for column 0 alike; so do 1 and 3 for column 1."""
    score = torch.tensor([[9.0, 0.0], [0.0, 9.0], [8.0, 0.0], [0.0, 8.0]])
    order = find_order([score], density=0.5, lanes=2, steps=50)
    lanes = [set(order.units[lane::2].tolist()) for lane in (0, 1)]
    assert {0, 2} not in lanes and order.after == order.fine_grained == 1
    assert order.before == pytest.approx(18 / 34) and order.gain == 1


def test_climbing_gets_near_the_best_of_all_orders():
    score = torch.rand(6, 5, generator=torch.Generator().manual_seed(2)) ** 3

    def kept(units):
        lanes = [score[list(units)][lane::3] for lane in range(3)]
        return sum(float(part.amax(0).sum()) for part in lanes) / float(score.sum())

    best = max(map(kept, permutations(range(6))))
    order = find_order([score[:, :2], score[:, 2:]], density=0.5, lanes=3, steps=300)
    words_are_one = order.before == pytest.approx(kept(range(6)))
    assert words_are_one and order.after == pytest.approx(kept(order.units.tolist()))
    assert order.before < order.after <= best + 1e-6 and order.after > 0.98 * best


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 8, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(self.gru(x)[0])))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model().eval()


X = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "producer, consumers, size",
    [("gru.0", [], 8), ("gru", ["hidden"], 8), ("hidden", ["head"], 12)],
)
def test_a_reordered_model_computes_the_same(model, producer, consumers, size):
    units = torch.randperm(size, generator=torch.Generator().manual_seed(1))
    moved = reorder(model, producer, consumers, units, check=[X])
    assert torch.allclose(moved(X), model(X), atol=1e-6)
    changed = [n for n, p in moved.named_parameters() if not torch.equal(p, model.state_dict()[n])]
    assert changed and all(name.startswith(("gru", "hidden", "head")) for name in changed)


def test_forgotten_consumers_are_noticed(model):
    with pytest.raises(RecipeError, match="consumers must be all that take the output of 'gru'"):
        reorder(model, "gru", [], torch.arange(7, -1, -1), check=[X])
    with pytest.raises(RecipeError, match="or a one-directional"):
        reorder(nn.Sequential(nn.ReLU()), "0", [], torch.arange(2), check=[X])


def test_an_order_keeps_more_on_the_machine(model):
    """At the same density the reordered model loses less score, compiles and still computes."""
    order = find_order(gate_scores(model.gru, 1), density=0.25, lanes=4, steps=300)
    assert order.before < order.after < order.fine_grained
    moved = reorder(model, "gru", ["hidden"], order.units, check=[X])
    recipe = Recipe(density=0.25, config=TINY, weight_bits=8)
    kept = []
    for each in (model, moved):
        small = compress(each, recipe, calibration=[X])
        second = list(small.gru.matrices().values())[2:]
        kept.append(sum(w.detach().abs().sum().item() for w in second))
    assert kept[1] > kept[0]
    program = espalier.compile(small, X[:1], config=TINY)
    with espalier.open("reference") as device:
        y = torch.as_tensor(device.load(program).run(X))
    assert (y - small(X).detach()).abs().max() <= 2 * float(small.head.output_scale)
