"""Learned scales: their gradient against equation 3 of LSQ by hand, and their life."""

import math

import pytest
import torch
from torch import nn

from espalier.errors import EspalierError
from espalier.quantized import QuantGRU, QuantLinear
from espalier.quantized.arithmetic import grid_scale
from espalier.quantized.learned import learned_round


def step_gradient(x: float, scale: float, level: int) -> float:
    """d(round(x / s)·s) / ds as the paper has it: equation 3."""
    steps = x / scale
    if abs(steps) >= level:
        return math.copysign(level, steps)
    return -steps + math.floor(steps + 0.5)


def test_gradient_is_the_papers():
    """y = (rounded x)·s for two rows of three, the loss's gradient 1..6."""
    x = torch.tensor([[0.30, -1.24, 9.0], [0.76, 3.9, -3.6]], requires_grad=True)
    scale, level = torch.tensor([0.5, 0.5]), 7
    log = scale.log().requires_grad_()
    upstream = torch.arange(1.0, 7).view(2, 3)
    rounded = learned_round(x, log, scale[:, None], level)
    (rounded * scale[:, None] * upstream).sum().backward()
    assert rounded.tolist() == [[1, -2, 7], [2, 7, -7]]
    gain = (3 * level) ** -0.5
    for row in range(2):
        by_hand = sum(
            g * step_gradient(v, 0.5, level)
            for g, v in zip(upstream[row], x.tolist()[row], strict=True)
        )
        assert log.grad[row].item() == pytest.approx(0.5 * float(by_hand) * gain, rel=1e-5)
    assert x.grad.tolist() == [[1, 2, 0], [4, 0, 0]]


def finite_difference(layer: QuantLinear, x: torch.Tensor, name: str) -> float:
    """dL/d ln(scale), the rounded integers held and each one's distance to x / s counted.

    Away from ties an integer does not move with the scale, so by LSQ's equation the gradient is
    that of y with the integer replaced by x / s + (integer - x / s at the present scale).
    """
    with torch.no_grad():
        weight, scale, unit = layer.weight[0], float(layer.weight_scale), float(layer.input_scale)
        w, c = weight / scale, x[0] / unit
        w_rest, c_rest = torch.floor(w + 0.5) - w, torch.floor(c + 0.5) - c

        def output(step: float) -> float:
            s, u = scale, unit
            if name == "weight_scale":
                s *= math.exp(step)
            else:
                u *= math.exp(step)
            return float(((weight / s + w_rest) * s * (x[0] / u + c_rest) * u).sum())

        return (output(1e-3) - output(-1e-3)) / 2e-3


@pytest.mark.parametrize("name, elements, level", [("weight_scale", 5, 7), ("input_scale", 5, 127)])
def test_a_linear_layers_scales_learn(name, elements, level):
    torch.manual_seed(1)
    layer = QuantLinear(nn.Linear(5, 1))
    layer.set_bit_width("weight", 4)
    layer.learn_scales("weight_scale", "input_scale")
    layer.search = "max"
    layer.set_scales(0.02, 1e-4)
    layer.learning = layer.input_free = True
    x = torch.rand(1, 5)
    with torch.no_grad():  # nothing at the range's end, where the gradient is another
        layer.weight_scale.mul_(1.1)
        layer.follow_input_scale()
    layer(x).sum().backward()
    gradient = getattr(layer, f"log_{name}").grad.item()
    expected = finite_difference(layer, x, name) * (elements * level) ** -0.5
    assert gradient == pytest.approx(expected, rel=1e-2, abs=1e-6)
    assert abs(expected) > 1e-6


def test_scales_follow_weights_then_training_then_nothing():
    torch.manual_seed(2)
    layer = QuantLinear(nn.Linear(6, 3))
    plain = set(layer.state_dict())
    layer.learn_scales("weight_scale")
    layer.set_scales(1 / 127, 1e-4)
    start = layer.weight_scale.clone()
    assert torch.allclose(layer.log_weight_scale.exp(), start)
    layer(torch.rand(4, 6)).sum().backward()
    assert layer.log_weight_scale.grad is None  # not yet
    layer.learning = True
    layer(torch.rand(4, 6)).sum().backward()
    assert layer.log_weight_scale.grad.abs().max() > 0
    with torch.no_grad():
        layer.log_weight_scale.add_(math.log(2))
        layer.weight.mul_(5)  # fitted scales would follow
    layer.update_scales()
    assert torch.allclose(layer.weight_scale, 2 * start)
    layer.keep_scales()
    layer.update_scales()
    assert torch.allclose(layer.weight_scale, 2 * start)
    assert set(layer.state_dict()) == plain


def test_input_scales_stay_on_the_grid_and_small_steps_add_up():
    layer = QuantLinear(nn.Linear(2, 2))
    layer.learn_scales("input_scale")
    layer.set_scales(0.011, 1e-4)
    layer.learning = layer.input_free = True
    before = float(layer.input_scale)
    for _ in range(40):
        with torch.no_grad():
            layer.log_input_scale.sub_(1e-3)  # less than the grid's step, 1/256 to 1/128
        layer.follow_input_scale()
    assert float(layer.input_scale) == grid_scale(math.exp(layer.log_input_scale.item())) < before
    assert float(layer.input_scale) == pytest.approx(before * math.exp(-0.04), rel=1 / 128)


def test_a_grus_rows_learn_and_both_matrices_move_a_joint_scale():
    torch.manual_seed(3)
    gru = QuantGRU(nn.GRU(3, 4))
    gru.learn_scales(*gru.row_scales)
    gru.set_scales(1 / 127)
    gru.learning = True
    gru(torch.rand(6, 2, 3))[0].square().sum().backward()
    both = gru.log_gates_scale_l0.grad.clone()
    gru.zero_grad()
    gru.mask("weight_hh_l0")[:8] = False
    gru(torch.rand(6, 2, 3))[0].square().sum().backward()
    assert (both != 0).all() and not torch.equal(both, gru.log_gates_scale_l0.grad)
    assert (gru.log_new_input_scale_l0.grad != 0).all()


def test_a_scale_that_is_not_finite_is_named():
    layer = QuantLinear(nn.Linear(2, 2))
    layer.path = "head"
    layer.learn_scales("weight_scale")
    layer.set_scales(1 / 127, 1e-4)
    layer.learning = True
    with torch.no_grad():
        layer.log_weight_scale[1] = torch.nan
    with pytest.raises(EspalierError, match="weight_scale of 'head' is not: lower the learning"):
        layer.update_scales()
