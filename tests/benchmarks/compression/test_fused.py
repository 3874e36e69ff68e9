"""The C loops against the definition: the same integers, gradients and scales."""

import shutil

import fused
import pytest
import torch
from torch import nn

from espalier import Recipe, compress
from espalier.quantized import cell, gru
from espalier.quantized.weights import largest_scale, row_scales

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")


@pytest.fixture
def loops(tmp_path, monkeypatch):
    """Switches to the C loops; what they replace returns when the test ends."""
    for module, name in (
        (cell, "integer_states"), (cell, "_through_time"), (gru, "row_scales")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(module, name))
    return lambda: fused.install(tmp_path)


def states_and_gradients(model, x):
    model.zero_grad()
    y, h = model(x)
    (y.square().sum() + h.sum()).backward()
    return y.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("threshold", [0, 5])
def test_a_gru_is_the_same(loops, threshold):
    torch.manual_seed(0)
    x = 2 * torch.randn(7, 5, 10)
    recipe = Recipe(density=1 / 4, delta_threshold=threshold)
    model = compress(nn.GRU(10, 24, 2), recipe, calibration=[x]).train()
    states, gradients = states_and_gradients(model, x)
    assert loops()
    again, followed = states_and_gradients(model, x)
    assert again.equal(states)
    for name, gradient in gradients.items():
        assert torch.allclose(followed[name], gradient, rtol=1e-4, atol=1e-6), name
    assert any(gradient.any() for gradient in gradients.values())


def test_without_gradients_too(loops):
    x = torch.randn(4, 3, 6)
    model = compress(nn.GRU(6, 16), Recipe(density=1 / 2), calibration=[x])
    with torch.no_grad():
        expected = model(x)[0]
        assert loops()
        assert model(x)[0].equal(expected)


@pytest.mark.parametrize("density", [1.0, 0.1, 0.0])
def test_row_scales_are_the_same(loops, density):
    torch.manual_seed(1)
    weight = torch.randn(40, 90) * (torch.rand(40, 90) < density)
    levels = torch.where(torch.arange(90) < 50, 7.0, 119.0)
    limit = largest_scale(2.0**-12)
    expected = row_scales(weight, levels, limit)
    assert loops()
    assert torch.allclose(gru.row_scales(weight, levels, limit), expected, rtol=1e-6)
