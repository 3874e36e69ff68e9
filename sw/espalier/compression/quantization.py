"""How a recipe's rounding takes part in a compression: scales that are searched or learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import RecipeError
from ..quantized import QuantLinear
from ..quantized.learned import LearnedScales
from ..quantized.weights import SEARCHES
from .convert import quant_modules
from .masking import Masking
from .ranges import RANGES, Largest
from .smoothing import fold_outliers
from .temporal import takes_differences

if TYPE_CHECKING:
    from .recipe import Recipe
    from .run import Run


def range_maker(recipe: Recipe) -> Callable[[], Largest]:
    """What makes a range for each layer's input."""
    return partial(RANGES[recipe.activation_scales], recipe.percentile)


def smooth(model: nn.Module, recipe: Recipe, calibration: Any) -> nn.Module:
    """The model with outliers folded, if the recipe wants it."""
    if not recipe.smoothing:
        return model
    if calibration is None:
        raise RecipeError("smoothing needs sample inputs: give calibration=")
    return fold_outliers(model, calibration, recipe.smoothing)


def prepare(run: Run) -> None:
    """Set how scales are found, and make the parameters of those that are learned."""
    recipe, modules = run.recipe, quant_modules(run.model)
    if recipe.weight_scales == "output":
        if run.calibration is None:
            raise RecipeError('weight_scales "output" needs sample inputs: give calibration=')
        run.collect(run.weights)
        for weight in run.weights:
            name = weight.name.rpartition(".")[2]
            weight.holder.moments[name] = weight.state["moment"]
    for module in holders(run.model):
        module.search = recipe.weight_scales if recipe.weight_scales in SEARCHES else "error"
        if run.total_steps and recipe.weight_scales == "learned":
            module.learn_scales(*module.row_scales)
    for module in modules:
        module.watched = bool(recipe.delta_penalty)
        if run.total_steps and recipe.activation_scales == "learned" and _is_linear(module):
            module.learn_scales("input_scale")
    if recipe.delta_penalty and not any(map(takes_differences, modules)):
        raise RecipeError("delta_penalty must be 0 for a model without nn.GRU")


@torch.no_grad()
def update_scales(run: Run) -> None:
    """Fit scales to the weights; once the pattern is fixed, take over those that are learned."""
    learners = [module for module in holders(run.model) if module.learned_scales]
    if run.total_steps and run.fixed and not all(m.learning for m in learners):
        _fit(run)  # learning starts from here
        for module in learners:
            module.learning = True
    linear = list(filter(_is_linear, quant_modules(run.model)))
    for module in linear:
        module.follow_input_scale()
    by_path = {module.path: module for module in quant_modules(run.model)}
    for module in linear:
        if module.learning and module.feeds is not None:
            module.output_scale.copy_(by_path[module.feeds].input_scale / 256)
    _fit(run)


def _fit(run: Run) -> None:
    for module in quant_modules(run.model):
        module.update_scales()
    for weight in run.weights:
        if isinstance(weight.holder, Masking):
            weight.holder.update_scales(weight.parameter)


def holders(model: nn.Module) -> list[LearnedScales]:
    """The modules with row scales: quantized ones and masks."""
    return [module for module in model.modules() if isinstance(module, LearnedScales)]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, QuantLinear)


def finish(model: nn.Module) -> None:
    """Scales stay as they are; nothing is watched any more."""
    for module in holders(model):
        module.keep_scales()
    for module in quant_modules(model):
        module.watched = False
        module.sent.clear()


_STATE = "learning", "feeds", "input_free"


def state(model: nn.Module) -> dict[str, Any]:
    """For a checkpoint: which scales are being learned, and what calibration found about them."""
    return {
        name: [getattr(module, key, None) for key in _STATE]
        for name, module in model.named_modules()
        if isinstance(module, LearnedScales)
    }


def load_state(model: nn.Module, values: Mapping[str, Any]) -> None:
    """Continue from `state`."""
    for name, value in values.items():
        for key, each in zip(_STATE, value, strict=True):
            setattr(model.get_submodule(name), key, each)
