"""How large a value 8 bits are to hold: the choice of an activation's range from samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..spec.numerics import COLUMN_MAX

POOL = 1 << 16
"""Magnitudes kept of all batches; of more, about every second goes, chosen at random, and again.

Not by their places: every second of a row of even width would be the same channels in every row.
"""
SEED = 0
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
    """A range from a sample of all magnitudes, each as likely to be in it as any other."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._share = 1.0
        """Magnitudes are kept whose random key in 0..1 is below."""
        self._random = torch.Generator().manual_seed(SEED)

    def add(self, magnitude: Tensor) -> None:
        super().add(magnitude)
        keys = torch.rand(len(magnitude), generator=self._random).to(magnitude.device)
        self._parts.append(magnitude)
        self._keys.append(keys)
        self._thin()
        while sum(len(part) for part in self._parts) > POOL:
            self._share /= 2
            self._thin()

    def _thin(self) -> None:
        kept = [keys < self._share for keys in self._keys]
        self._parts = [part[k] for part, k in zip(self._parts, kept, strict=True)]
        self._keys = [keys[k] for keys, k in zip(self._keys, kept, strict=True)]

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
