"""Compression inside a training loop: schedule, pattern, scales, distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import RecipeError
from . import quantization
from .batches import Arguments, call
from .calibration import Observer, apply_scales, calibrate, observing
from .distillation import Teacher
from .parallel import gathered
from .recipe import Recipe
from .report import Report, make_report
from .run import Run
from .temporal import delta_loss, skipped_columns


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

    The forward value is the machine's from the first step on (where `recipe.arithmetic` says so);
    gradients pass straight through rounding and, until the pattern is fixed at `recipe.prune_end`,
    through pruning as the method wants. The default's density until then is d + (1 - d)·(1 - t)^3,
    t the share of that time. Scales are taken from the training inputs, at the first forward and
    after each renewal of the pattern; from `calibration` before, if given.

    Members
    -------
    model: the module to train; forward and parameter names are the original's.
    steps, total_steps: optimizer steps done and planned; 0 planned compresses at once.
    run: the matrices and the recipe's parts at work on them.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, total_steps: int, *, calibration: Any = None
    ) -> None:
        if type(total_steps) is not int or total_steps < 0:
            raise RecipeError(f"total_steps must be an integer of at least 0, not {total_steps!r}")
        self.recipe = recipe
        model = quantization.smooth(model, recipe, calibration)
        self.run = Run(model, recipe, total_steps, calibration)
        self.model = self.run.model
        wishes, paths = recipe.distills, [w.name.rpartition(".")[0] for w in self.run.weights]
        self._teacher = Teacher(model, self.model, wishes, paths) if wishes else None
        self._observe = False
        self._last_call: Arguments | None = None
        self._on_machine = recipe.arithmetic == "machine"
        self.run.renew()
        if not self._on_machine:
            self.run.update_scales()
        elif calibration is not None:
            calibrate(self.model, calibration, quantization.range_maker(recipe))
        self._observe = calibration is None and self._on_machine
        self._hook = self.model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        self.run.watch_gradients()

    @property
    def steps(self) -> int:
        return self.run.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.run.steps = steps

    @property
    def total_steps(self) -> int:
        return self.run.total_steps

    @property
    def pattern_fixed(self) -> bool:
        """Whether pattern and activation scales are final."""
        return self.run.fixed

    def density(self, goal: float) -> float:
        """The density of a matrix at the present step."""
        return self.run.method.density(goal, self.run.progress)

    def loss(self, task_loss: Tensor, inputs: Any, outputs: Any) -> Tensor:
        """The loss to train with: the task's, with distillation and the cost of changes if wanted.

        inputs: what the model was called with, a tensor or a tuple of arguments;
        outputs: its result, logits along the last axis when distilling.
        """
        if self._teacher is not None:
            task_loss = self._teacher.loss(task_loss, inputs, outputs)
        if self.recipe.delta_penalty:
            task_loss = task_loss + self.recipe.delta_penalty * delta_loss(self.model)
        penalty = self.run.method.penalty(self.run)
        if penalty is not None:
            task_loss = task_loss + penalty
        return task_loss

    def step(self) -> None:
        """Follow the schedule; call it after each optimizer step."""
        run, was_fixed = self.run, self.run.fixed
        run.steps += 1
        if not was_fixed and (run.steps % run.interval == 0 or run.fixed):
            run.renew()
            self._observe = self._on_machine
        run.update_scales()

    def _before_forward(self, model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Forward pre-hook: once after each renewal, let the coming inputs set the scales."""
        self._last_call = Arguments(args, dict(kwargs))
        if not self._observe:
            return
        self._observe = False
        observer = Observer(quantization.range_maker(self.recipe))
        with observing(model, observer):
            for share in gathered(self._last_call):
                observer.finish(call(model, share))
        apply_scales(model, observer)

    def report(self) -> Report:
        """Requested and achieved densities now."""
        return make_report(self.run.weights, self.recipe.config.lanes)

    def finish(self) -> nn.Module:
        """The compressed model in evaluation mode, pruned weights 0, with `espalier_report`.

        A loop that stops early gets the recipe's density all the same.
        """
        if not self.run.fixed:
            self.run.steps = self.run.total_steps
            self.run.renew()
        self._hook.remove()
        for hook in self._teacher.hooks if self._teacher else ():
            hook.remove()
        report = self.report()
        self.run.finish()
        self.model.espalier_report = report.with_skipped(self._skipped_columns())
        return self.model.eval()

    def _skipped_columns(self) -> dict[str, float]:
        """On the calibration data or, without any, on what the model was last called with."""
        batches = self.run.calibration
        if batches is None and self._last_call is not None:
            batches = [self._last_call]
        if not self._on_machine or batches is None:
            return {}
        return skipped_columns(self.model, batches)

    def state_dict(self) -> dict[str, Any]:
        """What restores this compressor; torch.load reads it with weights_only."""
        return {
            "recipe": self.recipe.to_json(),
            "total_steps": self.total_steps,
            "steps": self.steps,
            "observe": self._observe,
            "scales": quantization.state(self.model),
            "model": self.model.state_dict(),
            "methods": {weight.name: dict(weight.state) for weight in self.run.weights},
            "goals": {weight.name: weight.goal for weight in self.run.weights},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`. Raises RecipeError when its recipe or total_steps differ."""
        mine = self.recipe.to_json(), self.total_steps
        if (state["recipe"], state["total_steps"]) != mine:
            raise RecipeError(
                "the saved state must belong to the same recipe and number of steps; it is of "
                f"{state['recipe']}, {state['total_steps']} steps; remove it, or use that recipe"
            )
        run = self.run
        run.steps, self._observe = int(state["steps"]), bool(state["observe"])
        self.model.load_state_dict(state["model"])
        quantization.load_state(self.model, state["scales"])
        for weight in run.weights:
            weight.state = {
                key: value.to(weight.parameter.device, copy=True)
                for key, value in state["methods"][weight.name].items()
            }
            weight.goal = float(state["goals"][weight.name])
            weight.frozen = run.fixed or run.method.once
