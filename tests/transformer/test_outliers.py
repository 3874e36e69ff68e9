"""Loud channels: both ways out compute the same in real numbers and less error in integers."""

from __future__ import annotations

import pytest
import tiny_transformers as tiny
import torch
from torch import nn
from torch.nn import functional

from espalier.tokens import graph as tg
from espalier.transformer import Options, quantize
from espalier.transformer.calibrate import POOL, Range
from espalier.transformer.outliers import copies, least_error, smoothing

X = torch.randn(8, 16, 32, generator=torch.Generator().manual_seed(3))


def error(model: nn.Module, **options: object) -> float:
    small = quantize(model, X, calibration=[X], options=Options(**options))
    with torch.no_grad():
        result, expected = small(X)["output"], model(X)
    return float((result - expected).norm() / expected.norm())


def loud_norm(norm_first: bool) -> nn.Module:
    """A channel of a LayerNorm is 40 times as loud as the others, and its weights are small."""
    model = tiny.encoder(norm_first=norm_first, activation="gelu")
    layer = model.layers[0]
    with torch.no_grad():
        layer.norm1.weight[5] *= 40
        layer.self_attn.in_proj_weight[:, 5] /= 40 if norm_first else 1
        layer.linear1.weight[:, 5] /= 1 if norm_first else 40
    return model


@pytest.mark.parametrize("norm_first", [False, True])
def test_smoothing_takes_a_loud_channel_out(norm_first: bool) -> None:
    model = loud_norm(norm_first)
    plain = error(model, smooth=False, activation_range="max")
    assert error(model) < plain / 2
    graph = quantize(model, X, calibration=[X]).graph()
    norms = [o for o in graph.operations if isinstance(o, tg.LayerNorm)]
    again = len(norms) - len({o.input for o in norms})
    assert again == (0 if norm_first else 1)  # the residual sum needs the LayerNorm as it is


def loud_neuron() -> nn.Module:
    """One neuron before the activation is 20 times as loud as the others."""
    model = tiny.encoder(activation="gelu", norm_first=True)
    layer = model.layers[0]
    with torch.no_grad():
        layer.linear1.weight[7] = 0
        layer.linear1.weight[7, 0] = 30
        layer.linear2.weight[:, 7] /= 3
    return model


def test_copies_take_a_loud_neuron_out() -> None:
    model = loud_neuron()
    assert error(model) < error(model, copies=0) / 1.5
    graph = quantize(model, X, calibration=[X]).graph()
    table = next(o for o in graph.operations if isinstance(o, tg.Table))
    assert 64 < table.output.width <= 72 and table.input.width == table.output.width


def make_range(x: torch.Tensor) -> Range:
    found = Range()
    found.add(x)
    return found


def test_copies_sum_to_the_function() -> None:
    h = torch.randn(400, 6)
    h[::10, 2] += 30
    f = functional.gelu
    found = copies(make_range(h), make_range(f(h)), f, torch.ones(6), most=16)
    assert found is not None and set(found.channels.tolist()) == {2}
    parts = f(h[:, found.channels] - found.shift).clamp(max=found.limit).sum(1)
    total = f(h[:, 2]).clamp(max=found.limit) + parts
    assert float((total - f(h[:, 2])).abs().max()) < 0.18  # GELU's least value, near a limit


def test_quiet_neurons_are_not_copied() -> None:
    h = torch.randn(400, 6)
    f = functional.gelu
    assert copies(make_range(h), make_range(f(h)), f, torch.ones(6), most=16) is None


def test_smoothing_leaves_even_channels_alone() -> None:
    x, weight = torch.rand(400, 8) - 0.5, torch.ones(4, 8)
    assert smoothing(make_range(x), weight, 119, 0.6) is None


def test_least_error_clips_rare_outliers_only() -> None:
    x = torch.randn(100_000)
    assert least_error(x, 4.5) > 3.5
    x[0] = 100
    assert least_error(x, 100.0) < 80


def test_a_range_keeps_every_channel() -> None:
    """Tokens are left out of a full pool, never channels."""
    found = Range()
    for _ in range(120):
        found.add(torch.arange(384.0).expand(30, -1))
    assert torch.equal(found.pool.unique(), torch.arange(384.0))
    assert found.pool.numel() <= POOL
    assert torch.equal(found.channels, torch.arange(384.0))
