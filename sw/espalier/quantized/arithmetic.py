"""Exact integers in torch: `spec.numerics` on int64 tensors, with straight-through gradients.

Exact integers travel as floating-point tensors, so that autograd can follow them: a column input,
a weight or a product's sum is an integer-valued float; a 16-bit element is integer·scale. float32
holds every integer up to 2^24, and every 16-bit integer times a scale of 8 significant bits
(`grid_scale`), without rounding.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..spec import numerics
from .learned import learned_round

FLOAT32_INTEGERS = 1 << 24
"""Integers up to this magnitude are exact in float32, in any order of summation."""
SCALE_BITS = 8
"""Significant bits of an activation scale: a 16-bit integer times it has at most 24."""
STATE_SCALE = numerics.GATE_SCALE
"""Element scale of GRU states, sigmoid and tanh."""
STATE_COLUMN_SCALE = STATE_SCALE * (1 << numerics.COLUMN_SHIFT)
"""Their scale as column inputs, 2^-7."""


class _StraightThrough(torch.autograd.Function):
    """The value of `exact`, the gradient of `smooth`."""

    @staticmethod
    def forward(ctx: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(smooth: Tensor, exact: Tensor) -> Tensor:
    """`exact` with the gradient of `smooth`; both have one shape and dtype."""
    return _StraightThrough.apply(smooth, exact)


def grid_scale(scale: float) -> float:
    """The smallest scale of SCALE_BITS significant bits that is not below `scale` > 0."""
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(math.ceil(mantissa * (1 << SCALE_BITS)), exponent - SCALE_BITS)


def saturate(value: Tensor) -> Tensor:
    """Clip integers to a vector element's 16 bits."""
    return value.clamp(numerics.VALUE_MIN, numerics.VALUE_MAX)


def to_values(x: Tensor, scale: float) -> Tensor:
    """Real x as int64 elements: floor(x / scale + 0.5), saturated to 16 bits."""
    return saturate(torch.floor(_finite(x) / scale + 0.5).long())


def _finite(x: Tensor) -> Tensor:
    """x in double precision. Raises InputError for NaN and infinity: no integer stands for them."""
    if not torch.isfinite(x).all():
        raise InputError("values must be finite to be quantized; there is NaN or infinity")
    return x.detach().double()


def to_columns(x: Tensor, scale: float, log_scale: Tensor | None = None) -> Tensor:
    """Real x as column inputs: floor(x / scale + 0.5) clipped to ±127, as floats of x's dtype.

    The gradient is 1 / scale within the range and 0 outside; with the scalar `log_scale` the scale
    learns, too, see `learned_round`. Raises InputError for NaN, infinity.
    """
    low, high = numerics.COLUMN_MIN, numerics.COLUMN_MAX
    if log_scale is not None:
        _finite(x)
        return learned_round(x, log_scale, torch.tensor(scale), high)
    exact = torch.floor(_finite(x) / scale + 0.5).clamp(low, high).to(x.dtype)
    return straight_through((x / scale).clamp(low, high), exact) if x.requires_grad else exact


def hold_back(new: Tensor, last: Tensor, threshold: int) -> Tensor:
    """The column inputs in force: `last` (sent) where |new - last| <= threshold, else `new`.

    The gradient is `new`'s.
    """
    return straight_through(new, torch.where((new - last).abs() <= threshold, last, new).detach())


def hold_back_sequence(columns: Tensor, threshold: int) -> Tensor:
    """`hold_back` along time (axis 0), last-sent values starting at 0."""
    if threshold == 0:
        return columns
    last, held = torch.zeros_like(columns[0]), []
    for new in columns:
        last = hold_back(new, last, threshold)
        held.append(last)
    return torch.stack(held)


def product(columns: Tensor, weight: Tensor) -> Tensor:
    """columns [..., N] times integer weight [M, N], transposed: exact sums [..., M].

    Computed in float32 when no partial sum can leave its exact integers, otherwise in float64.
    """
    dtype = product_dtype(weight)
    return columns.to(dtype) @ weight.to(dtype).T


def product_dtype(weight: Tensor) -> torch.dtype:
    """The floats that hold every partial sum of an integer weight's [M, N] products exactly."""
    bound = float(weight.detach().abs().sum(dim=1).max()) * numerics.COLUMN_MAX
    return torch.float32 if bound <= FLOAT32_INTEGERS else torch.float64


@cache
def _table(name: str, device: torch.device) -> Tensor:
    """The table's results [2^16] for all elements, from the smallest on, as float64."""
    parts = zip(*numerics.make_table(*numerics.FUNCTIONS[name]), strict=True)
    base, slope = (torch.tensor(part) for part in parts)
    value = torch.arange(numerics.VALUE_MIN, numerics.VALUE_MAX + 1)
    segment = numerics.table_segment(value)
    results = saturate(numerics.table_value(value, base[segment], slope[segment]))
    return results.double().to(device)


def look_up(name: str, value: Tensor) -> Tensor:
    """The named table function of 16-bit elements at its input scale: float64 elements at 2^-15."""
    index = (value - numerics.VALUE_MIN).int().flatten()
    return _table(name, value.device).index_select(0, index).view(value.shape)


def table(name: str, value: Tensor) -> Tensor:
    """`look_up` as int64."""
    return look_up(name, value).long()
