"""How large a value 8 bits are to hold: the choice of an activation's range from samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..spec.numerics import COLUMN_MAX

POOL = 1 << 16
"""Magnitudes kept of all batches; of more, every second goes, and again."""
CLIPPING_STEPS = 100
"""Candidates of `LeastError`, as hundredths of the largest magnitude."""


class Largest:
    """The largest magnitude: nothing of the samples is clipped."""

    def __init__(self) -> None:
        self.largest = 0.0

    def add(self, magnitude: Tensor) -> None:
        """Take note of magnitudes [n], n > 0."""
        self.largest = max(self.largest, float(magnitude.amax()))

    def value(self) -> float:
        """The end of the range."""
        return self.largest


class _Pooled(Largest):
    """A range from an even sample of all magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Tensor] = []
        self._stride = 1

    def add(self, magnitude: Tensor) -> None:
        super().add(magnitude)
        self._parts.append(magnitude[:: self._stride].clone())
        while sum(len(part) for part in self._parts) > POOL:
            self._stride *= 2
            self._parts = [part[::2].clone() for part in self._parts]

    @property
    def pool(self) -> Tensor:
        return torch.cat(self._parts)


class Percentile(_Pooled):
    """What `percent` of the magnitudes do not exceed."""

    def __init__(self, percent: float) -> None:
        super().__init__()
        self.percent = percent

    def value(self) -> float:
        if self.percent == 100:
            return self.largest
        return float(torch.quantile(self.pool, self.percent / 100))


class LeastError(_Pooled):
    """The range of the least squared error, of rounding within and of clipping beyond.

    Source: Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, arXiv
    1902.06822, section 3 (searched on a grid, because the error is not convex).
    """

    def value(self) -> float:
        pool, best, least = self.pool, self.largest, torch.inf
        for step in range(CLIPPING_STEPS, 0, -1):
            end = self.largest * step / CLIPPING_STEPS
            scale = end / COLUMN_MAX
            if scale == 0:
                return self.largest
            rounded = torch.floor(pool / scale + 0.5).clamp(max=COLUMN_MAX) * scale
            error = float((rounded - pool).square().sum())
            if error < least:
                best, least = end, error
        return best


RANGES: dict[str, Callable[[float], Largest]] = {
    "max": lambda percentile: Largest(),
    "percentile": Percentile,
    "mse": lambda percentile: LeastError(),
    "learned": lambda percentile: LeastError(),
}
"""By the name in `Recipe.activation_scales`; "learned" starts from the least error."""
