"""Weights and row parameters as integers: scales by row, masks, straight-through rounding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..parameters import Matrix, Rows
from ..spec import numerics
from .arithmetic import straight_through

CLIPPING_RATIOS = tuple(1 - 0.05 * step for step in range(13))
"""Candidates for a row's range, as shares of its largest weight: 1.0 down to 0.4."""
SCALE_MIN = 2.0**-40
"""Scale of a row without weights; its multiplier is 0."""


class RowTensors(NamedTuple):
    """Requantization of rows: `Rows` with the real scale and bias that gradients follow.

    value = saturate(scale_sum(total, multiplier, shift, integer_bias))·unit ≈ total·scale + bias
    """

    multiplier: Tensor
    shift: Tensor
    integer_bias: Tensor
    scale: Tensor
    bias: Tensor
    unit: float

    def requantize(self, total: Tensor) -> Tensor:
        """int64 elements of int64 totals [..., rows]."""
        value = numerics.scale_sum(total, self.multiplier, self.shift, self.integer_bias)
        return value.clamp(numerics.VALUE_MIN, numerics.VALUE_MAX)

    def integer(self) -> Rows:
        """The same in NumPy."""
        parts = (self.multiplier, self.shift, self.integer_bias)
        multiplier, shift, bias = (part.detach().cpu().numpy().astype(np.int64) for part in parts)
        return Rows(multiplier=multiplier, shift=shift, bias=bias)


def make_rows(scale: Tensor, bias: Tensor, unit: float) -> RowTensors:
    """Row parameters of real scales and biases [rows], for results of one `unit`.

    The vector form of `numerics.row_scale` and `numerics.row_bias`; tests hold them equal.
    """
    target = scale.detach().double() / unit
    shift = torch.full_like(target, numerics.SHIFTS[0], dtype=torch.int64)
    for candidate in numerics.SHIFTS[1:]:
        fits = torch.floor(target * (1 << candidate) + 0.5) < 1 << numerics.MULTIPLIER_BITS
        shift = torch.where(fits, candidate, shift)
    multiplier = torch.floor(target * (torch.ones_like(shift) << shift) + 0.5).long()
    sixteenth = unit / (1 << numerics.GUARD_BITS)
    integer_bias = torch.floor(bias.detach().double() / sixteenth + 0.5)
    integer_bias = integer_bias.clamp(numerics.BIAS_MIN, numerics.BIAS_MAX).long()
    return RowTensors(multiplier, shift, integer_bias, scale, bias, unit)


def largest_scale(unit: float) -> float:
    """The largest real scale whose multiplier fits, for results of one `unit`."""
    return ((1 << numerics.MULTIPLIER_BITS) - 1) / (1 << numerics.SHIFTS[0]) * unit


def row_scales(weight: Tensor, levels: Tensor, limit: float) -> Tensor:
    """Scale of each row of real weights [M, N] with magnitudes 0..levels [N], at most `limit`.

    Of the CLIPPING_RATIOS of the largest weight the one with the least squared error: at 4 bits,
    clipping a row's outlier costs less than coarser steps for all others.
    """
    weight = weight.detach()
    full = (weight.abs() / levels).amax(dim=1).clamp(SCALE_MIN, limit)
    best, least = full, torch.full_like(full, torch.inf)
    for ratio in CLIPPING_RATIOS:
        scale = (full * ratio).clamp(min=SCALE_MIN)
        steps = torch.floor(weight / scale[:, None] + 0.5)
        rounded = torch.minimum(torch.maximum(steps, -levels), levels) * scale[:, None]
        error = (rounded - weight).square().sum(dim=1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


def apply_mask(weight: Tensor, mask: Tensor, frozen: bool) -> Tensor:
    """weight·mask; pruned weights keep their gradient, and may return, until `frozen`."""
    masked = weight * mask
    return (
        masked if frozen or not weight.requires_grad else straight_through(weight, masked.detach())
    )


def integer_weight(weight: Tensor, scale: Tensor, bit_width: int) -> Tensor:
    """Integers of weights [M, N] at row scales [M]; gradient 1 / scale within the range, else 0."""
    level = numerics.WEIGHT_LEVELS[bit_width]
    steps = weight / scale[:, None]
    exact = torch.floor(steps.detach() + 0.5).clamp(-level, level)
    return (
        straight_through(steps.clamp(-level - 0.5, level + 0.5), exact)
        if steps.requires_grad
        else exact
    )


def make_matrix(weight: Tensor, bit_width: int) -> Matrix:
    """An integer-valued tensor as the compiler's matrix."""
    return Matrix(weight=weight.detach().cpu().numpy().astype(np.int16), bit_width=bit_width)
