"""Prune at once and let what is left make up for it: one-shot pruning without labels.

Each layer's output is kept, |W x - W' x|^2 summed over calibration inputs, with H = E[x x^T].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..parts import Method, cubic
from ..scores.second_order import damped
from ..weights import Weight

if TYPE_CHECKING:
    from ..run import Run


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Method, ABC):
    """What both methods share: layer by layer, from inputs that earlier layers really give.

    Parameters
    ----------
    damping: share of H's mean diagonal added to its diagonal.
    sequential: collect a layer's inputs after the earlier ones were pruned; False takes the dense
        model's, with a single pass over the calibration data.
    """

    calibrated = True
    once = True
    score = "second-order"

    damping: float = 0.01
    sequential: bool = True

    def renew(self, run: Run) -> None:
        run.collect(run.weights)
        run.allocate([run.score(weight, weight.value) for weight in run.weights])
        for weight in run.weights:
            if weight.goal < 1:
                if self.sequential:
                    run.collect([weight])
                self.fit(run, weight)
            del weight.state["moment"]

    def fit(self, run: Run, weight: Weight) -> None:
        """Prune one matrix."""
        mask = weight.project(run.score(weight, weight.value), weight.goal)
        self.update(weight, weight.value.to(torch.float64, copy=True), mask)

    @abstractmethod
    def update(self, weight: Weight, value: Tensor, mask: Tensor) -> None:
        """Set the weight's values and mask from its dense value (double, its own) and a mask."""


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Reconstruction):
    """Kept weights become the least-squares solution: w'_S = w H[:, S] H[S, S]^-1, row by row.

    The best that weights at these places can do for the layer's output.

    Parameters
    ----------
    rounds: prune by and by, each time by scores of what the last solution gave.

    Source: Hassibi and Stork, Optimal Brain Surgeon (1992), equation 5, for a set of weights.
    """

    rounds: int = 4

    def fit(self, run: Run, weight: Weight) -> None:
        dense = weight.value.to(torch.float64, copy=True)
        for done in range(1, self.rounds + 1):
            density = cubic(weight.goal, done / self.rounds)
            mask = weight.project(run.score(weight, weight.value), density)
            self.update(weight, dense, mask)

    def update(self, weight: Weight, value: Tensor, mask: Tensor) -> None:
        h = damped(weight, self.damping)
        target = value @ h  # [M, N]
        result = torch.zeros_like(value)
        for row, kept in enumerate(mask):
            at = kept.nonzero().flatten()
            factor = torch.linalg.cholesky(h[at][:, at])
            result[row, at] = torch.cholesky_solve(target[row, at, None], factor)[:, 0]
        weight.set_value(result.to(weight.value.dtype))
        weight.set_mask(mask)


@dataclass(frozen=True, kw_only=True)
class SparseGpt(Reconstruction):
    """Column after column: prune, and let all later columns make up for the error.

    The pattern says how many of a column each lane keeps; which, is chosen when its turn comes, by
    weights that have been adjusted already.
    Source: Frantar and Alistarh, SparseGPT, arXiv 2301.00774, algorithm 1 (block size 1 for masks).
    """

    def update(self, weight: Weight, value: Tensor, mask: Tensor) -> None:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(weight, self.damping)))
        rows = torch.linalg.cholesky(inverse, upper=True)  # row j: H^-1 of columns j and later
        mask = mask.clone()
        for j in range(value.shape[1]):
            mask[:, j] = weight.reselect(j, value[:, j].abs(), mask)
            error = torch.where(mask[:, j], 0.0, value[:, j]) / rows[j, j]
            value[:, j:] -= error[:, None] * rows[j, j:]
        weight.set_value((value * mask).to(weight.value.dtype))
        weight.set_mask(mask)
