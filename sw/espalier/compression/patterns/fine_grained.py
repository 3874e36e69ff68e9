"""Any set of weights: the yardstick of all patterns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import Pattern


@dataclass(frozen=True)
class FineGrained(Pattern):
    """The weights of the highest scores, wherever they are."""

    def mask(self, score: Tensor, density: float) -> Tensor:
        return top(score.flatten(), density * score.numel()).view(score.shape)

    def reselect(self, score: Tensor, kept: Tensor) -> Tensor:
        """As many of the column as before, now those of the highest scores."""
        count = int(kept.sum())
        return top(score, count) if count else kept


def top(score: Tensor, count: float) -> Tensor:
    """Which [n] of the scores [n] are the `count` highest, rounded and at least one."""
    kept = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    order = score.argsort(descending=True, stable=True)
    kept[order[: min(len(score), max(1, round(count)))]] = True
    return kept
