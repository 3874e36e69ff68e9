"""Compression inside a training loop: schedule, pattern, scales, distillation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError
from .calibration import Observer, apply_scales, calibrate, forward_arguments, observing, tensors
from .convert import convert, quant_modules
from .pattern import column_balanced_mask
from .recipe import Recipe
from .report import Report, make_report


class Compressor:
    """Prunes and quantizes a copy of a model while the user's own loop trains it.

        compressor = Compressor(model, recipe, total_steps)
        optimizer = torch.optim.Adam(compressor.model.parameters(), lr=1e-3)
        for inputs, target in batches:
            outputs = compressor.model(inputs)
            loss = compressor.loss(task_loss(outputs, target), inputs, outputs)
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            compressor.step()
        model = compressor.finish()

    The forward value is the machine's from the first step on; gradients pass straight through
    rounding and, until the pattern is fixed at `recipe.prune_end`, pruning. Until then density is
    d + (1 - d)·(1 - t)^3, t the share of that time. Scales are taken from the training inputs, at
    the first forward and after each renewal of the pattern; from `calibration` before, if given.

    Members
    -------
    model: the module to train; forward and parameter names are the original's.
    steps, total_steps: optimizer steps done and planned; 0 planned compresses at once.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, total_steps: int, *, calibration: Any = None
    ) -> None:
        if type(total_steps) is not int or total_steps < 0:
            raise RecipeError(f"total_steps must be an integer of at least 0, not {total_steps!r}")
        self.recipe, self.total_steps, self.steps = recipe, total_steps, 0
        self.model = convert(model, recipe)
        self._teacher = copy.deepcopy(model).eval() if recipe.distillation else None
        self._observe = False
        self._renew_pattern()
        if calibration is not None:
            calibrate(self.model, calibration, recipe.percentile)
        self._observe = calibration is None
        self._hook = self.model.register_forward_pre_hook(self._before_forward, with_kwargs=True)

    @property
    def pattern_fixed(self) -> bool:
        """Whether pattern and activation scales are final."""
        return self.steps >= self.recipe.prune_end * self.total_steps

    def density(self, goal: float) -> float:
        """The density of a matrix at the present step."""
        if self.pattern_fixed:
            return goal
        progress = self.steps / (self.recipe.prune_end * self.total_steps)
        return goal + (1 - goal) * (1 - progress) ** 3

    def loss(self, task_loss: Tensor, inputs: Any, outputs: Any) -> Tensor:
        """The loss to train with: the task's, mixed with distillation if the recipe asks for it.

        inputs: what the model was called with, a tensor or a tuple of arguments;
        outputs: its result, logits along the last axis when distilling.
        """
        if self._teacher is None:
            return task_loss
        with torch.no_grad():
            expected = self._teacher(*forward_arguments(inputs))
        share = self.recipe.distillation
        return (1 - share) * task_loss + share * self._distance(outputs, expected)

    def _distance(self, outputs: Any, expected: Any) -> Tensor:
        """Mean over rows and tensors of T²·KL(softmax(expected / T) || softmax(outputs / T))."""
        t = self.recipe.temperature
        losses = []
        for pair in zip(tensors(outputs), tensors(expected), strict=True):
            mine, theirs = (x.reshape(-1, x.shape[-1]).div(t).log_softmax(dim=-1) for x in pair)
            divergence = functional.kl_div(mine, theirs, log_target=True, reduction="batchmean")
            losses.append(t * t * divergence)
        return torch.stack(losses).mean()

    def step(self) -> None:
        """Follow the schedule; call it after each optimizer step."""
        was_fixed = self.pattern_fixed
        self.steps += 1
        interval = max(1, round(self.recipe.prune_end * self.total_steps / self.recipe.updates))
        if not was_fixed and (self.steps % interval == 0 or self.pattern_fixed):
            self._renew_pattern()
            self._observe = True
        for module in quant_modules(self.model):
            module.update_scales()

    @torch.no_grad()
    def _renew_pattern(self) -> None:
        config = self.recipe.config
        for module in quant_modules(self.model):
            module.mask_frozen = self.pattern_fixed
            for name, weight in module.matrices().items():
                density = self.density(self.recipe.matrix(module.path, name).density)
                masks = [
                    column_balanced_mask(
                        gate.abs(), density, config.lanes, config.arrays, config.group
                    )
                    for gate in weight.chunk(module.blocks)
                ]
                module.mask(name).copy_(torch.cat(masks))

    def _before_forward(self, model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Forward pre-hook: once after each renewal, let the coming inputs set the scales."""
        if not self._observe:
            return
        self._observe = False
        observer = Observer(self.recipe.percentile)
        with observing(model, observer):
            observer.finish(model(*args, **kwargs))
        apply_scales(model, observer)

    def report(self) -> Report:
        """Requested and achieved densities now."""
        return make_report(self.model, self.recipe)

    @torch.no_grad()
    def finish(self) -> nn.Module:
        """The compressed model in evaluation mode, pruned weights 0, with `espalier_report`.

        A loop that stops early gets the recipe's density all the same.
        """
        if not self.pattern_fixed:
            self.steps = self.total_steps
            self._renew_pattern()
        self._hook.remove()
        for module in quant_modules(self.model):
            for name, weight in module.matrices().items():
                weight.mul_(module.mask(name))
            module.update_scales()
        self.model.espalier_report = self.report()
        return self.model.eval()

    def state_dict(self) -> dict[str, Any]:
        """What restores this compressor; torch.load reads it with weights_only."""
        return {
            "recipe": self.recipe.to_json(),
            "total_steps": self.total_steps,
            "steps": self.steps,
            "observe": self._observe,
            "model": self.model.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`. Raises RecipeError when its recipe or total_steps differ."""
        mine = self.recipe.to_json(), self.total_steps
        if (state["recipe"], state["total_steps"]) != mine:
            raise RecipeError(
                "the saved state must belong to the same recipe and number of steps; it is of "
                f"{state['recipe']}, {state['total_steps']} steps; remove it, or use that recipe"
            )
        self.steps, self._observe = int(state["steps"]), bool(state["observe"])
        self.model.load_state_dict(state["model"])
        for module in quant_modules(self.model):
            module.mask_frozen = self.pattern_fixed
