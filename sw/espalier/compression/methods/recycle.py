"""What small filters know goes to the ones that stay, before they are dropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import RecipeError
from ..parts import Method, cubic
from ..weights import Weight


@dataclass(frozen=True, kw_only=True)
class Recycle(Method):
    """Filter contribution recycle: at each update, filters that are to go fade into the others.

    Of the rows outside of the mask a collector c = sum of share·row is put together; every row that
    stays becomes w + rate·odds·c, its odds (of sum 1) by its norm, and rows outside shrink by
    `decay`. All rows go on computing until the pruning time is over: nothing is cut at once.

    Parameters
    ----------
    rate: how much of the collector is given away at an update.
    decay: how much rows outside of the mask lose at an update.

    For the pattern "filters" (or "rows", "heads"): with others nothing is outside as a whole.

    Source: Chen et al., Filter Contribution Recycle: Boosting Model Pruning with Small Norm
    Filters, KSII Transactions on Internet and Information Systems 16(11), 2022. Only its abstract
    was at hand: how contributions are mixed and given away is this implementation's.
    """

    trained = True

    rate: float = 0.1
    decay: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("decay", self.decay)):
            if not 0 <= value <= 1:
                raise RecipeError(f"{name} must be in 0..1, not {value}")

    def density(self, goal: float, progress: float) -> float:
        return cubic(goal, progress)

    def apply(self, weight: Weight, mask: Tensor, fixed: bool) -> None:
        if weight.goal < 1:
            weight.set_value(recycled(weight.value, mask.any(1), self.rate, self.decay))
        weight.set_mask(mask if fixed else torch.ones_like(mask))


def recycled(value: Tensor, kept: Tensor, rate: float, decay: float) -> Tensor:
    """Rows [M, N] after an update, `kept` [M] of them to stay."""
    if kept.all() or not kept.any():
        return value
    norms = value.norm(dim=1)
    shares = torch.where(kept, 0.0, norms)
    collector = (shares / shares.sum().clamp(min=1e-30)) @ value  # [N]
    odds = torch.where(kept, norms, 0.0)
    odds = odds / odds.sum().clamp(min=1e-30)
    return torch.where(kept[:, None], value + rate * odds[:, None] * collector, (1 - decay) * value)
