"""Whole chain: compress, compile, run on the reference machine; equal to the torch module."""

import numpy as np
import pytest
import torch
from torch import nn

import espalier
from espalier import Recipe
from espalier.spec.config import SMALL, TINY


def signal(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Classifier(nn.Module):
    """Two GRU layers, a head with a hidden layer on the last step, and one on all steps."""

    def __init__(self, bidirectional=False):
        super().__init__()
        torch.manual_seed(1)
        self.gru = nn.GRU(7, 9, 2, batch_first=True, bidirectional=bidirectional)
        width = 18 if bidirectional else 9
        self.hidden, self.out = nn.Linear(width, 6), nn.Linear(6, 4)
        self.frame = nn.Linear(width, 3)

    def forward(self, x, h0=None):
        y, h_n = self.gru(x, h0)
        scores = self.out(torch.relu(self.hidden(y[:, -1])))
        return {"scores": scores, "frames": torch.sigmoid(self.frame(y)), "state": h_n}


class Context(nn.Module):
    """A context vector starts the state and joins every step's input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.start, self.extra = nn.Linear(3, 5), nn.Linear(3, 2)
        self.gru, self.out = nn.GRU(6, 5), nn.Linear(5, 2)

    def forward(self, x, context):
        extra = torch.tanh(self.extra(context)).expand(x.shape[0], -1, -1)
        y, _ = self.gru(torch.cat([x, extra], -1), torch.tanh(self.start(context)).unsqueeze(0))
        return self.out(y)


class Gates(nn.Module):
    """No GRU: runs once per sample; several activations on slices of one layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(10, 8), nn.Linear(8, 5)

    def forward(self, x):
        first, second = self.a(x.flatten(1)).chunk(2, dim=-1)
        return self.b(torch.cat([torch.tanh(second), torch.sigmoid(first)], dim=-1))


CASES = {
    "classifier": (Classifier(), (signal(3, 9, 7),), TINY),
    "both directions": (Classifier(True), (signal(3, 9, 7),), SMALL),
    "initial state": (Classifier(), (signal(3, 9, 7), torch.tanh(signal(2, 3, 9))), SMALL),
    "context": (Context(), (signal(9, 3, 4), signal(3, 3, seed=5)), TINY),
    "gates": (Gates(), (signal(8, 2, 5),), TINY),
}


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(density=0.5, weight_bits=8, delta_threshold=2)]
)
@pytest.mark.parametrize("name", CASES)
def test_reference_equals_torch(name, recipe):
    """Calibration leaves nothing to rescale but into tables, which is exact: nothing differs."""
    model, args, config = CASES[name]
    small = espalier.compress(model.eval(), recipe, calibration=[args])
    program = espalier.compile(small, args, config=config)
    with espalier.open("reference") as device:
        found = device.load(program).run(*(tensor.numpy() for tensor in args))
    with torch.no_grad():
        expected = small(*args)
    found = found if isinstance(found, tuple) else (found,)
    expected = expected if isinstance(expected, dict) else {"output": expected}
    assert [port.name for port in program.outputs] == list(expected)
    for array, tensor in zip(found, expected.values(), strict=True):
        assert np.array_equal(array, tensor.numpy())
        assert np.abs(array).max() > 0
