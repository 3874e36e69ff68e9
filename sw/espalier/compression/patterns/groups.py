"""Short runs of a column, kept or dropped together, the same number in every band of rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ...errors import RecipeError
from ..parts import Pattern


@dataclass(frozen=True)
class Groups(Pattern):
    """Groups of `size` neighbouring rows in one column; each band of `size` rows keeps as many.

    A group is one word of a memory that feeds `size` multipliers with one input, and every band
    takes the same number of words: one index a group and no imbalance, with columns chosen anew in
    each band.

    Source: Yoo and Lee, Structured Pruning for Efficient Transformer Model Compression,
    Transactions on Semiconductor Engineering 1(1), 2023: a hardware-friendly structured pattern for
    BERT and GPT-2 near fine-grained pruning at 80 %. Only its abstract was at hand: that groups are
    parts of columns, balanced by bands, is this implementation's reading.
    """

    size: int = 8

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"a group must have at least one row, not {self.size}")

    def mask(self, score: Tensor, density: float) -> Tensor:
        height, width = score.shape
        padded = functional.pad(score, (0, 0, 0, -height % self.size))
        groups = padded.unflatten(0, (-1, self.size)).sum(1)  # [bands, N]
        rank = groups.argsort(dim=1, descending=True, stable=True).argsort(1)
        kept = rank < max(1, round(density * width))
        return kept.repeat_interleave(self.size, 0)[:height].contiguous()

    def check(self, density: float, shape: tuple[int, int]) -> None:
        if density * shape[1] < 0.5:
            raise RecipeError(
                f"density must leave a band of rows one of its {shape[1]} columns, so be at least "
                f"{0.5 / shape[1]:.4g}, not {density:.4g}"
            )
