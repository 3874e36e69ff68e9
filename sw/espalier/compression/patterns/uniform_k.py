"""The hardware's pattern with one k for all columns: what k per column is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import RecipeError
from ..parts import Pattern
from .column_balanced import by_lane, reselect_by_lane


@dataclass(frozen=True, kw_only=True)
class UniformK(Pattern):
    """Each lane keeps the same k of its ceil(M / lanes) rows in every column.

    Densities are multiples of 1 / ceil(M / lanes); the nearest is taken. Top-k of the seed design.
    """

    lanes: int

    def mask(self, score: Tensor, density: float) -> Tensor:
        ranked = by_lane(score, self.lanes, -torch.inf).argsort(dim=0, descending=True, stable=True)
        k = max(1, round(density * len(ranked)))
        return (ranked.argsort(0) < k).view(-1, score.shape[1])[: len(score)].contiguous()

    def check(self, density: float, shape: tuple[int, int]) -> None:
        slots = -(-shape[0] // self.lanes)
        if density * slots < 0.5:
            raise RecipeError(
                f"density must be a multiple of 1/{slots} for one k in all columns of "
                f"{shape[0]} rows on {self.lanes} lanes, not {density:.4g}; use column-balanced, "
                "or fewer lanes"
            )

    def reselect(self, score: Tensor, kept: Tensor) -> Tensor:
        return reselect_by_lane(score, kept, self.lanes)
