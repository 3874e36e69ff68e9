"""Weights and row parameters as integers: scales by row, masks, straight-through rounding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..parameters import Matrix, Rows
from ..spec import numerics
from .arithmetic import straight_through
from .learned import SCALE_MIN, learned_round

CLIPPING_RATIOS = tuple(1 - 0.05 * step for step in range(13))
"""Candidates for a row's range, as shares of its largest weight: 1.0 down to 0.4."""
SEARCHES = ("max", "error", "output")
"""How row scales are fitted to weights, see `row_scales`."""


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
    factor: Tensor
    """multiplier / 2^shift"""
    offset: Tensor
    """integer_bias / 16 + 1/2"""

    def requantize(self, total: Tensor) -> Tensor:
        """Elements of integer totals [..., rows], both as float64.

        scale_sum's two floors are one, because the bias is an integer: floor((floor(a) + b) / 16) =
        floor((a + b) / 16). The sum's 27 + 18 bits, as far down as 2^-26, fit into float64's 53.
        """
        value = torch.addcmul(self.offset, total, self.factor).floor_()
        return value.clamp_(numerics.VALUE_MIN, numerics.VALUE_MAX)

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
    factor = multiplier.double() / (torch.ones_like(shift) << shift)
    offset = integer_bias.double() / (1 << numerics.GUARD_BITS) + 0.5
    return RowTensors(multiplier, shift, integer_bias, scale, bias, unit, factor, offset)


def largest_scale(unit: float) -> float:
    """The largest real scale whose multiplier fits, for results of one `unit`."""
    return ((1 << numerics.MULTIPLIER_BITS) - 1) / (1 << numerics.SHIFTS[0]) * unit


def row_scales(
    weight: Tensor,
    levels: Tensor,
    limit: float,
    search: str = "error",
    moment: Tensor | None = None,
) -> Tensor:
    """Scale of each row of real weights [M, N] with magnitudes 0..levels [N], at most `limit`.

    "max" gives the largest weight the largest level. The others take, of the CLIPPING_RATIOS of
    that, the one with the least error d of rounding: "error" the least d^T d (at 4 bits, clipping a
    row's outlier costs less than coarser steps for all others), "output" the least d^T H d, where
    `moment` [N, N] is H = E[x x^T] of the inputs, which is the expected squared error of W x.
    """
    weight = weight.detach()
    full = (weight.abs() / levels).amax(dim=1).clamp(SCALE_MIN, limit)
    if search == "max":
        return full
    if search == "error" or moment is None:
        weight, levels, moment = *_nonzero(weight, levels), None
    best, least = full, torch.full_like(full, torch.inf)
    for ratio in CLIPPING_RATIOS:
        scale = (full * ratio).clamp(min=SCALE_MIN)
        difference = torch.floor(weight / scale[:, None] + 0.5)
        torch.maximum(difference, -levels, out=difference)
        torch.minimum(difference, levels, out=difference)
        difference.mul_(scale[:, None]).sub_(weight)
        seen = difference if moment is None else difference @ moment
        error = (seen * difference).sum(dim=1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


def _nonzero(weight: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The weights [M, k] of the fullest row's number that are not 0, and their levels.

    Rows with fewer keep zeros, which every scale rounds without error.
    """
    used = (weight != 0).to(torch.uint8)
    places = used.topk(max(1, int(used.sum(dim=1).max())), dim=1, sorted=False).indices
    return weight.gather(1, places), levels[places]


def apply_mask(weight: Tensor, mask: Tensor, frozen: bool) -> Tensor:
    """weight·mask; pruned weights keep their gradient, and may return, until `frozen`."""
    masked = weight * mask
    return (
        masked if frozen or not weight.requires_grad else straight_through(weight, masked.detach())
    )


def integer_weight(
    weight: Tensor, scale: Tensor, bit_width: int, log_scale: Tensor | None = None
) -> Tensor:
    """Integers of weights [M, N] at row scales [M]; gradient 1 / scale within the range, else 0.

    With `log_scale` [M] the scales learn, too, see `learned_round`.
    """
    level = numerics.WEIGHT_LEVELS[bit_width]
    if log_scale is not None:
        return learned_round(weight, log_scale, scale[:, None], level)
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
