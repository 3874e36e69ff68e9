"""The interface of compression: a score, a pattern, an allocation and a method make a recipe.

    score       what is important          [M, N] numbers for a weight matrix
    pattern     which weights may be kept  a mask [M, N] of some density from a score
    allocation  how much of each matrix    densities from matrices and their scores
    method      how training gets there    when to prune, what happens to gradients

A new one is one file with one frozen dataclass: its fields are its parameters, and what it
remembers of a matrix is in `Weight.state`. So a part can be compared, printed, shared by models and
written into a checkpoint's recipe. Give the object in the recipe, or a name from the tables of the
packages `scores`, `patterns`, `allocations` and `methods`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ..errors import RecipeError

if TYPE_CHECKING:
    from .run import Run
    from .weights import Weight


@dataclass(frozen=True)
class Score(ABC):
    """What is important: a number for every weight of a matrix; higher is more.

    Members
    -------
    calibrated: whether it needs `weight.state["moment"]`, from sample inputs.
    trained: whether it comes from gradients only.
    """

    calibrated: ClassVar[bool] = False
    trained: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, weight: Weight, value: Tensor) -> Tensor:
        """Scores [M, N] of the matrix `value` [M, N] in the place of `weight`."""

    def gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        """Take note of the loss's gradient [M, N] in every step; the result trains the weight."""
        return gradient


@dataclass(frozen=True)
class Pattern(ABC):
    """Which sets of weights are allowed.

    Members
    -------
    joint: whether all blocks of a matrix (gates; query, key and value) share one mask.
    """

    joint: ClassVar[bool] = False

    @abstractmethod
    def mask(self, score: Tensor, density: float) -> Tensor:
        """Kept entries (bool [M, N]): of the allowed sets of this density the one with most score.

        Scores are any finite numbers.
        """

    # most patterns come near every density
    def check(self, density: float, shape: tuple[int, int]) -> None:  # noqa: B027
        """Raise RecipeError where no allowed set of a matrix [M, N] comes near the density."""

    def reselect(self, score: Tensor, kept: Tensor) -> Tensor:
        """Kept entries [M] of a column by new scores [M], allowed wherever `kept` was.

        One-shot methods that update weights on the way choose again by this, where the pattern lets
        them.
        """
        return kept


@dataclass(frozen=True)
class Allocation(ABC):
    """How much of each matrix is kept; within a matrix the pattern shares it out to columns."""

    @abstractmethod
    def densities(self, weights: Sequence[Weight], scores: Sequence[Tensor]) -> list[float]:
        """A density for each matrix. `weight.density` is the recipe's wish; 1 means untouched."""


@dataclass(frozen=True)
class Method:
    """How training gets to the pattern. Without training steps, prune at once.

    Members
    -------
    calibrated, trained: whether it needs sample inputs, training steps.
    once: whether the masks stay as they were first chosen.
    score: name of the score that it takes where the recipe has none.
    updates: how often it renews the masks, if it knows better than the recipe.
    """

    calibrated: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    once: ClassVar[bool] = False
    score: ClassVar[str] = "magnitude"
    updates: ClassVar[int | None] = None

    # most methods need neither of these two
    def prepare(self, run: Run) -> None:
        """Once, before masks are chosen: hooks on `run.model` go to `run.hooks`."""

    def penalty(self, run: Run) -> Tensor | None:
        """What is added to the loss, of the model's last call; None for nothing."""
        return None

    def density(self, goal: float, progress: float) -> float:
        """The density at a share 0..1 of the pruning time; `goal` at its end."""
        return goal

    def scored(self, weight: Weight, fixed: bool) -> Tensor:
        """The matrix whose scores choose the mask."""
        return weight.value

    def apply(self, weight: Weight, mask: Tensor, fixed: bool) -> None:
        """Put a newly chosen mask into force. `fixed`: it is the last."""
        weight.set_mask(mask)

    def gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        """The gradient [M, N] to train with, in place of the loss's own."""
        return gradient

    def renew(self, run: Run) -> None:
        """Choose all masks anew, at the start and at every update of the pruning time."""
        scores = [run.score(weight, self.scored(weight, run.fixed)) for weight in run.weights]
        run.allocate(scores)
        for weight, score in zip(run.weights, scores, strict=True):
            mask = weight.project(score, self.density(weight.goal, run.progress))
            self.apply(weight, mask, run.fixed)


def cubic(goal: float, progress: float) -> float:
    """goal + (1 - goal)·(1 - progress)^3: much at first, little at the end.

    Source: Zhu and Gupta, To prune, or not to prune, arXiv 1710.01878, equation 1.
    """
    return goal + (1 - goal) * (1 - min(progress, 1.0)) ** 3


def unknown(kind: str, value: object, choices: Sequence[str]) -> RecipeError:
    """The error for a part that is neither an object of its kind nor a known name."""
    names = ", ".join(choices)
    return RecipeError(
        f"{kind} must be one of: {names}; or an espalier.compression {kind.title()} object; "
        f"not {value!r}"
    )
