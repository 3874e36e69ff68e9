"""Prune by and by while training goes on, or at once."""

from __future__ import annotations

from dataclasses import dataclass

from ..parts import Method, cubic


@dataclass(frozen=True)
class Gradual(Method):
    """The density falls along a cubic curve; gradients reach pruned weights until the end.

    Source: Zhu and Gupta, To prune, or not to prune, arXiv 1710.01878; straight-through gradients:
    Lin et al., Dynamic Model Pruning with Feedback, arXiv 2006.07253.
    """

    def density(self, goal: float, progress: float) -> float:
        return cubic(goal, progress)


@dataclass(frozen=True)
class OneShot(Method):
    """Prune to the goal before the first step, then train what is left.

    Source: Han et al., Learning both Weights and Connections, arXiv 1506.02626 (one iteration).
    """

    once = True
