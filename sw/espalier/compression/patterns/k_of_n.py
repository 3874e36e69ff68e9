"""k of every n neighbours along a row: 2:4 and friends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import RecipeError
from ..parts import Pattern


@dataclass(frozen=True)
class KOfN(Pattern):
    """In every row, k of each n consecutive inputs.

    While a method lowers the density by and by, k is what the present density asks for.
    Source: Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378 (2:4).
    """

    k: int = 2
    n: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise RecipeError(f"k must be in 1..n={self.n}, not {self.k}")

    def mask(self, score: Tensor, density: float) -> Tensor:
        height, width = score.shape
        k = max(self.k, round(density * self.n))
        padded = functional.pad(score, (0, -width % self.n), value=-torch.inf)
        groups = padded.view(height, -1, self.n)
        rank = groups.argsort(dim=2, descending=True, stable=True).argsort(2)
        return (rank < k).view(height, -1)[:, :width].contiguous()

    def check(self, density: float, shape: tuple[int, int]) -> None:
        if abs(density - self.k / self.n) > 1e-6:
            raise RecipeError(
                f"density must be {self.k}/{self.n} with the pattern {self.k}:{self.n}, "
                f"not {density:.4g}"
            )
