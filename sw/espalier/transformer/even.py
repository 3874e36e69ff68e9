"""Attention's values made even: factors by channel that the projections before and after take over.

A context's channel is an average of one channel of the values, so dividing that channel by a factor
where values are made and multiplying the next projection's column by it changes nothing in floats.
In integers all channels then use more of the 8 bits that the loudest one would have for itself, in
values and context alike, and no operation is added.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from ..spec import numerics
from .calibrate import Range
from .outliers import STRENGTHS, grid_scales

AVERAGED = 0.25
"""Share of the values' rounding errors, squared, that is left after attention has averaged them:
the sum of squared weights, a quarter for four tokens that count alike."""
GAIN = 0.8
"""Factors must bring the expected error below this share of that without."""


def even(values: Range, context: Range, weight: Tensor, level: int) -> Tensor | None:
    """Factors [N] with the least expected error of weight @ context, [M, N]; None if none gain.

    Candidates are powers of the channels' magnitudes: of the values', the context's, or their mean.
    A weight that was rounded before stays as it is.
    """
    a, b = values.channels, context.channels
    usable = (a > 0) & (b > 0)
    if not usable.any() or grid_scales(weight, level) is not None:
        return None
    best, least = None, GAIN * _error(values, context, weight, level, torch.ones_like(a))
    for magnitudes, strength in product((a, b, (a * b).sqrt()), STRENGTHS):
        factors = torch.where(usable, magnitudes, torch.ones_like(a)) ** strength
        factors = factors / factors[usable].log().mean().exp()
        factors = torch.where(usable, factors, torch.ones_like(a))
        error = _error(values, context, weight, level, factors)
        if error < least:
            best, least = factors, error
    return best


def _error(values: Range, context: Range, weight: Tensor, level: int, factors: Tensor) -> float:
    """In steps squared: of rounding context and values, and weights times factors."""
    scaled = weight * factors
    limit = numerics.WEIGHT_LEVELS[8]  # values are weights of the product
    kept = float((values.channels / factors).max()) / limit
    step = float((context.channels / factors).max()) / numerics.COLUMN_MAX
    step = kept / 2 ** max(0, math.floor(math.log2(kept / step)))  # as the plan's gains have it
    columns = (step**2 + AVERAGED * kept**2) * float(scaled.square().sum())
    steps = scaled.abs().amax(1) / level
    rounded = float(steps.square().sum() * (context.mean_square / factors.square()).sum())
    return columns + rounded
