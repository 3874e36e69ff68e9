"""Whole blocks of neighbouring rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ...errors import RecipeError
from ..parts import Pattern
from .fine_grained import top


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of `rows` x `columns` weights are kept whole, those with the largest summed score.

    Source: Gray, Radford and Kingma, GPU Kernels for Block-Sparse Weights (2017).
    """

    rows: int = 8
    columns: int = 8

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise RecipeError(f"a block must have rows and columns, not {self.rows}x{self.columns}")

    def mask(self, score: Tensor, density: float) -> Tensor:
        height, width = score.shape
        padded = functional.pad(score, (0, -width % self.columns, 0, -height % self.rows))
        blocks = padded.unflatten(1, (-1, self.columns)).unflatten(0, (-1, self.rows)).sum((1, 3))
        kept = top(blocks.flatten(), density * blocks.numel()).view(blocks.shape)
        wide = kept.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        return wide[:height, :width].contiguous()
