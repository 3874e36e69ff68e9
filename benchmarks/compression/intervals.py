"""Paired intervals: how much two models differ on the same recordings, and what chance makes of it.

Each of two settings has values [seeds, recordings] (1 or 0 for right or wrong, or cross-entropy). A
bootstrap draws recordings, the same for both, and seeds, for each its own; the interval holds the
middle 95 % of the differences of means. With one seed it tells of recordings only.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), the percentile interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of the first minus mean of the second, and the interval of it."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired_difference(
    first: np.ndarray, second: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """The difference of two settings' values [seeds, N]; seeds may differ in number.

    Raises ValueError when the recordings are not the same number.
    """
    first, second = np.atleast_2d(first).astype(float), np.atleast_2d(second).astype(float)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"both must have the same recordings, not {first.shape[1]} and {second.shape[1]}"
        )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(first.shape[1], size=(draws, first.shape[1]))
    counts = np.zeros((draws, first.shape[1]))
    np.add.at(counts, (np.arange(draws)[:, None], drawn), 1 / first.shape[1])
    means = [_means(values, counts, rng) for values in (first, second)]
    low, high = np.quantile(means[0] - means[1], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(first.mean() - second.mean()), float(low), float(high))


def _means(values: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means [draws] over drawn seeds and recordings of weights [draws, N]."""
    by_seed = weights @ values.T  # [draws, seeds]
    seeds = rng.integers(len(values), size=by_seed.shape)
    return np.take_along_axis(by_seed, seeds, 1).mean(1)
