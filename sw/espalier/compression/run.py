"""One compression under way: the parts of a recipe, the matrices of a model, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from . import quantization
from .allocations import make_allocation
from .convert import convert, quantized_weights
from .masking import mask_model, without_masks
from .methods import make_method
from .moments import collect_moments
from .parallel import processes
from .parts import Method, Score
from .recipe import Recipe
from .scores import make_score
from .weights import Weight


class Run:
    """What methods work with: see `Method.renew`.

    Members
    -------
    model, weights: a copy of the user's model that is being compressed, and its matrices.
    score, allocation, method: the recipe's parts; patterns are the weights' own.
    steps, total_steps: training steps done and planned; 0 planned compresses at once.
    calibration: sample inputs, or None.
    hooks: on the model while it is being compressed; removed at the end.
    notes: what the method remembers of the model itself; not saved, see `Weight.state`.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, total_steps: int, calibration: Any = None
    ) -> None:
        self.recipe, self.total_steps, self.steps = recipe, total_steps, 0
        self.method = make_method(recipe.method)
        self.score = make_score(recipe.score or self.method.score)
        self.allocation = make_allocation(recipe.allocation)
        self.calibration = calibration
        self._check_needs()
        if recipe.arithmetic == "machine":
            self.model = convert(model, recipe)
            self.weights = quantized_weights(self.model, recipe)
        else:
            self.model, self.weights = mask_model(model, recipe)
        for weight in self.weights:
            if weight.density < 1:
                _check_density(weight)
        self.hooks: list[Any] = []
        self._watched: list[Weight] = []
        quantization.prepare(self)
        self.notes: dict[str, Any] = {}
        self.method.prepare(self)

    def _check_needs(self) -> None:
        for kind, part in (("score", self.score), ("method", self.method)):
            name = f"{kind} {getattr(self.recipe, kind) or self.method.score!r}"
            if part.trained and not self.total_steps:
                raise RecipeError(f"{name} needs training: give batches= and loss=")
            if part.calibrated and self.calibration is None:
                raise RecipeError(f"{name} needs sample inputs: give calibration=")

    @property
    def fixed(self) -> bool:
        """Whether masks and activation scales are final."""
        return self.steps >= self.recipe.prune_end * self.total_steps

    @property
    def progress(self) -> float:
        """Share of the pruning time that is over, 0..1."""
        return 1.0 if self.fixed else self.steps / (self.recipe.prune_end * self.total_steps)

    @property
    def interval(self) -> int:
        """Steps from one renewal of the masks to the next."""
        updates = self.method.updates or self.recipe.updates
        return max(1, round(self.recipe.prune_end * self.total_steps / updates))

    def allocate(self, scores: Sequence[Tensor]) -> None:
        """Set every matrix' `goal`."""
        for weight, goal in zip(
            self.weights, self.allocation.densities(self.weights, scores), strict=True
        ):
            weight.goal = goal

    def collect(self, weights: Sequence[Weight]) -> None:
        """Set `state["moment"]` of some weights from the calibration data."""
        collect_moments(self.model, weights, self.calibration)

    @torch.no_grad()
    def renew(self) -> None:
        """Let the method choose the masks for the present step."""
        if not self.method.once or not self.steps:
            collected = self.method.calibrated or all("moment" in w.state for w in self.weights)
            if self.score.calibrated and not collected:
                self.collect(self.weights)
            self.method.renew(self)
        for weight in self.weights:
            weight.frozen = self.fixed or self.method.once

    def watch_gradients(self) -> None:
        """Let score and method see, and change, every gradient; where they do."""
        if (type(self.score).gradient, type(self.method).gradient) == (
            Score.gradient,
            Method.gradient,
        ):
            return
        for weight in self.weights:
            if weight.parameter.requires_grad:
                self._watched.append(weight)
                if processes() == 1:
                    hook = partial(self._gradient, weight)
                    self.hooks.append(weight.parameter.register_hook(hook))

    def see_gradients(self) -> None:
        """With several processes, show score and method the gradients when they are averaged."""
        for weight in self._watched if processes() > 1 else ():
            if weight.parameter.grad is not None:
                weight.parameter.grad = self._gradient(weight, weight.parameter.grad)

    @torch.no_grad()
    def _gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        matrix = self.score.gradient(weight, weight.matrix(gradient))
        return weight.like_parameter(self.method.gradient(weight, matrix))

    def update_scales(self) -> None:
        """Fit the scales of rounded weights."""
        quantization.update_scales(self)

    @torch.no_grad()
    def finish(self) -> None:
        """Pruned weights become 0, gradients are the loss's own again."""
        for hook in self.hooks:
            hook.remove()
        for weight in self.weights:
            weight.set_value(weight.value * weight.mask)
        self.update_scales()
        quantization.finish(self.model)
        without_masks(self.model)


def _check_density(weight: Weight) -> None:
    rows, columns = weight.shape
    try:
        weight.pattern.check(weight.density, (rows // weight.blocks, columns))
    except RecipeError as error:
        raise RecipeError(f"{weight.name}: {error}") from None
