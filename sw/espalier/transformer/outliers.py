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
COPIES_GAIN = 0.65
"""Copies must bring the error below this share of that with clipping."""
TABLE_REACH = 6.0
"""GELU is 0 or x beyond."""
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

    @property
    def reach(self) -> float:
        """How far the activation's input must reach: biases hold the shifts."""
        return max(TABLE_REACH, self.limit, float(self.shift.max()))


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


def least_error(rows: Tensor, largest: float, loudness: Tensor | None = None) -> float:
    """The range of the least squared error of 8-bit columns, of rounding and of clipping; channels
    of rows [n, N] count by their loudness [N].

    Source: Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, arXiv
    1902.06822, section 3.
    """
    best, least = largest, math.inf
    counts = torch.ones(rows.shape[-1]) if loudness is None else loudness
    for step in range(STEPS, STEPS // 10, -1):
        end = largest * step / STEPS
        error = float(((columns_of(rows, end) - rows).square() * counts).sum())
        if error < least:
            best, least = end, error
    return best


def copies(
    before: Range, after: Range, function: Function, loudness: Tensor, most: int
) -> Copies | None:
    """The copies, at most `most`, with the least error of products; None when they gain little.

    before, after: ranges of the activation's input and result; loudness [N]: squared norms of the
    columns that the following weights have. Near a copy's limit f(h) and the sum differ by up to
    0.17 with GELU, and shifts that need a longer table make its chords coarser: both count as error
    like rounding does. Neurons whose copies do not pay are clipped.
    """
    measure = Measure.of(before, function, loudness)
    reach = max(TABLE_REACH, float(measure.rows.max()))
    clipped = columns_of(
        measure.chords(measure.rows, reach), least_error(after.rows, after.largest, loudness)
    )
    best, least = None, COPIES_GAIN * float(measure.error(clipped).sum())
    for step in range(STEPS, 1, -1):
        found = measure.copies(after.largest * step / STEPS, most)
        if found is None:
            continue
        error = float(measure.error(measure.result(found)).sum())
        if error < least:
            best, least = found, error
    return best


@dataclass(frozen=True)
class Measure:
    """Errors of an activation's columns: rows [n, N] of its input, with `counts` [n, 1] of tokens
    that each stands for, `exact` results, and the loudness [N] of what follows."""

    rows: Tensor
    counts: Tensor
    exact: Tensor
    loudness: Tensor
    function: Function

    @staticmethod
    def of(before: Range, function: Function, loudness: Tensor) -> Measure:
        """With one more row of every channel's largest input, which the samples may lack."""
        rows, counts = before.rows, before.rows.new_full((len(before.rows), 1), before.stride)
        rows, counts = (
            torch.cat([rows, before.highest[None]]),
            torch.cat([counts, counts[:1] * 0 + 1]),
        )
        return Measure(rows, counts, function(rows), loudness, function)

    def error(self, result: Tensor) -> Tensor:
        """Of each neuron [N]; what all tokens have in common is left to the next biases."""
        difference = result - self.exact
        mean = (difference * self.counts).sum(0) / self.counts.sum()
        return ((difference - mean).square() * self.counts).sum(0) * self.loudness

    def chords(self, x: Tensor, reach: float) -> Tensor:
        """The function as a table of that reach has it."""
        segment = (1 << numerics.TABLE_FRACTION_BITS) * reach / numerics.VALUE_MAX
        places = x.clamp(-reach, reach) / segment
        below = places.floor()
        first, last = self.function(below * segment), self.function((below + 1) * segment)
        return first + (last - first) * (places - below)

    def result(self, found: Copies) -> Tensor:
        """The columns of every neuron, copies added to the originals."""
        rows, reach = self.rows, found.reach
        total = columns_of(self.chords(rows, reach), found.limit)
        parts = self.chords(rows[:, found.channels] - found.shift, reach)
        return total.index_add(1, found.channels, columns_of(parts, found.limit))

    def copies(self, end: float, most: int) -> Copies | None:
        """The copies that pay most when all columns end at `end`."""
        total, repeats = columns_of(self.exact, end), torch.zeros_like(self.loudness).long()
        plain = least = self.error(total)
        loud = torch.arange(len(repeats))
        for count in range(1, most + 1):
            loud = loud[self.exact[:, loud].amax(0) > count * end]
            if not len(loud):
                break
            part = columns_of(self.function(self.rows[:, loud] - count * end), end)
            total = total.index_add(1, loud, part)
            error = self.error(total)
            repeats = torch.where(error < least, count, repeats)
            least = torch.minimum(error, least)
        order = ((plain - least) / repeats.clamp(min=1)).argsort(descending=True)
        fits = repeats[order].cumsum(0) <= most
        kept = torch.zeros_like(repeats).index_copy(0, order, repeats[order] * fits)
        return _copies(kept, end) if kept.any() else None


def columns_of(x: Tensor, end: float) -> Tensor:
    """Real values rounded to columns that reach `end`."""
    scale = end / numerics.COLUMN_MAX or 1.0
    return torch.floor(x / scale + 0.5).clamp(numerics.COLUMN_MIN, numerics.COLUMN_MAX) * scale


def _copies(repeats: Tensor, end: float) -> Copies:
    channels = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
    first = torch.repeat_interleave(repeats.cumsum(0) - repeats, repeats)
    return Copies(channels, (torch.arange(len(channels)) - first + 1) * end, end)
