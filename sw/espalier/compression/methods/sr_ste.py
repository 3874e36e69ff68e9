"""Train with the pattern in force from the start; decay what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..parts import Method, cubic
from ..weights import Weight


@dataclass(frozen=True, kw_only=True)
class SrSte(Method):
    """Sparse-refined straight-through estimator: masked forward, gradient g + decay·(1 - m)·w.

    The gradient of the masked loss reaches every weight; the decay keeps pruned ones small, so that
    the mask settles. The mask follows the weights at each of `Recipe.updates` (the source: at every
    step).

    Parameters
    ----------
    decay: 2e-4 in the source for SGD; Adam divides it by the gradient's size as well.
    ramp: share of the pruning time over which the density falls to the goal; 0 as in the source.

    Source: Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch,
    arXiv 2102.04010, equation 9.
    """

    trained = True

    decay: float = 2e-4
    ramp: float = 0.0

    def density(self, goal: float, progress: float) -> float:
        return cubic(goal, progress / self.ramp) if self.ramp else goal

    def gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        if weight.frozen:
            return gradient
        return gradient + self.decay * weight.value * ~weight.mask
