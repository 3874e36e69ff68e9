"""Loud channels: what a few of them cost all others, and two ways out that stay exact in floats.

Smoothing divides a LayerNorm's channels by factors that the following weights take over. Copies
repeat a loud neuron before an activation f with f(x) = x for large x: copy k computes f(h - k·c)
and saturates at c, so that their sum is f(h), and 8 bits only need to hold c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quantized.learned import SCALE_MIN
from ..spec import numerics
from .calibrate import Range
from .functions import Function

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the difficulty that may move from activations to weights."""
STEPS = 50
"""Candidates of a range, as shares of the largest magnitude."""
COPIES_GAIN = 0.5
"""Copies must bring the error below this share of that with clipping."""
PROBED, ON_GRID = 4, 1e-3
"""Rows that are looked at first; how far a rounded weight may be from a whole number of steps."""
UNIFORM = 1 / 12
"""Variance of a rounding error, in steps squared."""


@dataclass(frozen=True, eq=False)
class Copies:
    """channels [n] to repeat, each with `shift` [n] taken off; every copy ends at `limit`."""

    channels: Tensor
    shift: Tensor
    limit: float


def product_error(
    found: Range, weight: Tensor, factors: Tensor, level: int, rounded: bool = False
) -> float:
    """The expected squared error of weight @ x, [M, N], from rounding x / factors and
    weight·factors to their integers; `rounded` weights have none."""
    scaled = weight * factors
    step = float((found.channels / factors).max()) / numerics.COLUMN_MAX
    inputs = step**2 * float(scaled.square().sum())
    if rounded:
        return UNIFORM * inputs
    steps = scaled.abs().amax(1) / level
    weights = float(steps.square().sum() * (found.mean_square / factors.square()).sum())
    return UNIFORM * (inputs + weights)


def smoothing(found: Range, weight: Tensor, level: int, gain: float) -> Tensor | None:
    """Factors [N] with the least error of weight @ x, if it is below `gain` times that without.

    Source: Xiao et al., SmoothQuant, arXiv 2211.10438, equation 4.
    """
    loud = weight.abs().amax(0)
    usable = (found.channels > 0) & (loud > 0)
    even, rounded = torch.ones_like(loud), grid_scales(weight, level) is not None
    best, least = None, gain * product_error(found, weight, even, level, rounded)
    for strength in STRENGTHS:
        factors = found.channels**strength / loud ** (1 - strength)
        factors = torch.where(usable, factors, torch.ones_like(loud))
        factors = factors / factors[usable].log().mean().exp()
        factors = torch.where(usable, factors, torch.ones_like(loud))
        error = product_error(found, weight, factors, level)
        if error < least:
            best, least = factors, error
    return best


def grid_scales(weight: Tensor, level: int) -> Tensor | None:
    """Row scales [M] of a weight [M, N] that was rounded to ±level before; None if it was not."""
    for rows in (weight[:PROBED], weight):
        scales = torch.zeros_like(rows[:, 0])
        largest = rows.abs().amax(1)
        for steps in range(1, level + 1):
            scale = (largest / steps).clamp(min=SCALE_MIN)
            counts = rows / scale[:, None]
            exact = ((counts - counts.round()).abs() < ON_GRID).all(1)
            scales = torch.where((scales == 0) & exact, scale, scales)
        if (scales == 0).any():
            return None
    return scales


def least_error(pool: Tensor, largest: float) -> float:
    """The range of the least squared error of 8-bit columns, of rounding and of clipping.

    Source: Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, arXiv
    1902.06822, section 3.
    """
    best, least = largest, math.inf
    for step in range(STEPS, STEPS // 10, -1):
        end = largest * step / STEPS
        error = float((columns_of(pool, end) - pool).square().sum())
        if error < least:
            best, least = end, error
    return best


def copies(
    before: Range, after: Range, function: Function, loudness: Tensor, most: int
) -> Copies | None:
    """The copies, at most `most`, with the least error of products; None when they gain little.

    before, after: ranges of the activation's input and result; loudness [N]: squared norms of the
    columns that the following weights have. Near a copy's limit f(h) and the sum differ by up to
    0.17 with GELU, which counts as error like rounding does.
    """
    rows, exact = before.rows, function(before.rows)
    clipped = least_error(exact.flatten(), after.largest)
    best, least = None, COPIES_GAIN * _weighted(columns_of(exact, clipped), exact, loudness)
    for step in range(STEPS, 1, -1):
        end = after.largest * step / STEPS
        repeats = _repeats(after, end)
        if end == 0 or int(repeats.sum()) > most:
            break
        found = _copies(repeats, end)
        total = columns_of(exact, end)
        if len(found.channels):
            parts = columns_of(function(rows[:, found.channels] - found.shift), end)
            total = total.index_add(1, found.channels, parts)
        error = _weighted(total, exact, loudness)
        if error < least:
            best, least = found, error
    return best if best is not None and len(best.channels) else None


def _weighted(result: Tensor, exact: Tensor, loudness: Tensor) -> float:
    return float(((result - exact).square() * loudness).sum())


def columns_of(x: Tensor, end: float) -> Tensor:
    """Real values rounded to columns that reach `end`."""
    scale = end / numerics.COLUMN_MAX or 1.0
    return torch.floor(x / scale + 0.5).clamp(numerics.COLUMN_MIN, numerics.COLUMN_MAX) * scale


def _copies(repeats: Tensor, end: float) -> Copies:
    channels = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
    first = torch.repeat_interleave(repeats.cumsum(0) - repeats, repeats)
    return Copies(channels, (torch.arange(len(channels)) - first + 1) * end, end)


def _repeats(found: Range, end: float) -> Tensor:
    """How often each channel [width] must be repeated for a range."""
    return ((found.channels / end).ceil() - 1).clamp(min=0).long()
