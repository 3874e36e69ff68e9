"""Whole outputs: rows of a matrix, filters of a convolution, heads of attention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...errors import RecipeError
from ..parts import Pattern
from .fine_grained import top


@dataclass(frozen=True)
class Rows(Pattern):
    """Rows (units, filters) are kept whole, those with the largest summed score.

    Source: Li et al., Pruning Filters for Efficient ConvNets, arXiv 1608.08710 (summed magnitude).
    """

    def mask(self, score: Tensor, density: float) -> Tensor:
        kept = top(score.sum(1), density * len(score))
        return kept[:, None].repeat(1, score.shape[1])


@dataclass(frozen=True)
class Heads(Pattern):
    """Attention heads are kept whole: `size` neighbouring rows, the same ones of query, key, value.

    Parameters
    ----------
    size: elements of a head.
    inputs: heads are columns instead, as in the projection after attention.

    Source: Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, arXiv 1905.10650.
    """

    joint = True

    size: int
    inputs: bool = False

    def mask(self, score: Tensor, density: float) -> Tensor:
        score = score.T if self.inputs else score
        heads = score.unflatten(0, (-1, self.size)).sum((1, 2))
        kept = top(heads, density * len(heads)).repeat_interleave(self.size)
        mask = kept[:, None].repeat(1, score.shape[1])
        return mask.T.contiguous() if self.inputs else mask

    def check(self, density: float, shape: tuple[int, int]) -> None:
        width = shape[1 if self.inputs else 0]
        if self.size < 1 or width % self.size:
            raise RecipeError(f"heads of {self.size} must divide {width}; give Heads(size=...)")
