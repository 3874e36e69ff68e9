"""All matrices compete: one threshold on the score for the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import Allocation
from ..weights import Weight


@dataclass(frozen=True, kw_only=True)
class Global(Allocation):
    """The weights of the highest scores in the model, as many as the recipe's densities make.

    Matrices whose density is 1 stay out of it.

    Parameters
    ----------
    least: what every matrix keeps at least, as a share of its wish: a matrix that vanishes cuts the
        network.
    normalize: divide a matrix's scores by their root mean square first, so that scales of layers
        do not decide.
    """

    least: float = 0.2
    normalize: bool = False

    def densities(self, weights: Sequence[Weight], scores: Sequence[Tensor]) -> list[float]:
        taking = [i for i, weight in enumerate(weights) if weight.density < 1]
        result = [1.0] * len(weights)
        if not taking:
            return result
        budget = sum(weights[i].density * weights[i].size for i in taking)
        floors = [self.least * weights[i].density * weights[i].size for i in taking]
        kept = self._kept([scores[i].flatten() for i in taking], floors, budget)
        for i, count in zip(taking, kept, strict=True):
            result[i] = count / weights[i].size
        return result

    def _kept(self, scores: list[Tensor], floors: list[float], budget: float) -> list[float]:
        """Weights that each matrix keeps: the floor where it gets less, the rest by rank."""
        if self.normalize:
            scores = [score / score.square().mean().sqrt().clamp(min=1e-30) for score in scores]
        open_, kept = set(range(len(scores))), list(floors)
        while open_:
            rest = budget - sum(kept[i] for i in range(len(scores)) if i not in open_)
            every = torch.cat([scores[i] for i in sorted(open_)])
            count = min(max(1, round(rest)), len(every))
            threshold = every.kthvalue(len(every) - count + 1).values
            shares = {i: float((scores[i] >= threshold).sum()) for i in open_}
            low = {i for i, share in shares.items() if share < floors[i]}
            if not low:
                for i, share in shares.items():
                    kept[i] = share
                break
            open_ -= low
        return kept
