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

from ..spec import numerics
from .calibrate import Range

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the difficulty that may move from activations to weights."""
STEPS = 50
"""Candidates of a range, as shares of the largest magnitude."""
UNIFORM = 1 / 12
"""Variance of a rounding error, in steps squared."""


@dataclass(frozen=True, eq=False)
class Copies:
    """channels [n] to repeat, each with `shift` [n] taken off; every copy ends at `limit`."""

    channels: Tensor
    shift: Tensor
    limit: float


def product_error(found: Range, weight: Tensor, factors: Tensor, level: int) -> float:
    """The expected squared error of weight @ x, [M, N], from rounding x / factors and
    weight·factors to their integers."""
    scaled = weight * factors
    step = float((found.channels / factors).max()) / numerics.COLUMN_MAX
    inputs = step**2 * float(scaled.square().sum())
    steps = scaled.abs().amax(1) / level
    weights = float(steps.square().sum() * (found.mean_square / factors.square()).sum())
    return UNIFORM * (inputs + weights)


def smoothing(found: Range, weight: Tensor, level: int, gain: float) -> Tensor | None:
    """Factors [N] with the least error of weight @ x, if it is below `gain` times that without.

    Source: Xiao et al., SmoothQuant, arXiv 2211.10438, equation 4.
    """
    loud = weight.abs().amax(0)
    usable = (found.channels > 0) & (loud > 0)
    best, least = None, gain * product_error(found, weight, torch.ones_like(loud), level)
    for strength in STRENGTHS:
        factors = found.channels**strength / loud ** (1 - strength)
        factors = torch.where(usable, factors, torch.ones_like(loud))
        factors = factors / factors[usable].log().mean().exp()
        factors = torch.where(usable, factors, torch.ones_like(loud))
        error = product_error(found, weight, factors, level)
        if error < least:
            best, least = factors, error
    return best


def least_error(pool: Tensor, largest: float) -> float:
    """The range of the least squared error of 8-bit columns, of rounding and of clipping.

    Source: Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, arXiv
    1902.06822, section 3.
    """
    best, least = largest, math.inf
    for step in range(STEPS, STEPS // 10, -1):
        end = largest * step / STEPS
        error = _rounding_error(pool, end, clip=True)
        if error < least:
            best, least = end, error
    return best


def copies(found: Range, most: int) -> Copies | None:
    """The copies, at most `most`, whose range has the least error; None when none are needed."""
    best, least = 0.0, math.inf
    for step in range(STEPS, 1, -1):
        end = found.largest * step / STEPS
        if end == 0 or int(_repeats(found, end).sum()) > most:
            break
        error = _rounding_error(found.pool, end, clip=False)
        if error < least:
            best, least = end, error
    if best == 0:
        return None
    repeats = _repeats(found, best)
    channels = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
    first = torch.repeat_interleave(repeats.cumsum(0) - repeats, repeats)
    shift = (torch.arange(len(channels)) - first + 1) * best
    return Copies(channels, shift, best) if len(channels) else None


def _repeats(found: Range, end: float) -> Tensor:
    """How often each channel [width] must be repeated for a range."""
    return ((found.channels / end).ceil() - 1).clamp(min=0).long()


def _rounding_error(pool: Tensor, end: float, clip: bool) -> float:
    scale = end / numerics.COLUMN_MAX
    if scale == 0:
        return 0.0
    rounded = torch.floor(pool / scale + 0.5)
    if clip:
        rounded = rounded.clamp(numerics.COLUMN_MIN, numerics.COLUMN_MAX)
    return float((rounded * scale - pool).square().sum())
