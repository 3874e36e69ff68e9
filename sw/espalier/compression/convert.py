"""A user's model with quantized modules in place of nn.Linear and nn.GRU."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import nn

from ..errors import InputError, RecipeError
from ..quantized import QuantGRU, QuantLinear, QuantModule, TableFunctions
from .patterns import make_pattern
from .recipe import Recipe
from .weights import Weight, matrix_name

REPLACEMENTS: dict[type[nn.Module], type[QuantModule]] = {nn.Linear: QuantLinear, nn.GRU: QuantGRU}
"""Exact types only: a subclass computes something of its own."""


def convert(model: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of `model` that computes with the accelerator's integers; `model` is left untouched.

    The copy keeps attributes, parameter names and forward signature; it is dense, without scales.
    Raises RecipeError when nothing can be compressed, InputError for weights that are not finite.
    """
    _check_model(model)
    result = copy.deepcopy(model)
    replaced: dict[nn.Module, QuantModule] = {}
    for path, module in list(result.named_modules(remove_duplicate=False)):
        if type(module) not in REPLACEMENTS:
            continue
        if module not in replaced:
            replaced[module] = REPLACEMENTS[type(module)](module)
            replaced[module].path = path
        if path:
            parent, _, name = path.rpartition(".")
            setattr(result.get_submodule(parent), name, replaced[module])
        else:
            result = replaced[module]
    recipe.check_names((m.path, name) for m in replaced.values() for name in m.matrices())
    for module in replaced.values():
        _apply_recipe(module, recipe)
    result.__class__ = _with_tables(type(result))
    return result


def _check_model(model: nn.Module) -> None:
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    if modules and not any(type(module) in REPLACEMENTS for module in modules):
        names = sorted({type(module).__name__ for module in modules})
        raise RecipeError(
            f"the model must contain nn.Linear or nn.GRU to compress; it has: {', '.join(names)}; "
            'Recipe(arithmetic="float") prunes other modules too, without the accelerator\'s values'
        )
    check_parameters(model)


def check_parameters(model: nn.Module) -> None:
    """Raise RecipeError for what is no module, InputError for parameters that are not finite."""
    if not isinstance(model, nn.Module):
        raise RecipeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"parameters must be finite; {name!r} contains NaN or infinity")


def _apply_recipe(module: QuantModule, recipe: Recipe) -> None:
    for name in module.matrices():
        goals = recipe.matrix(module.path, name)
        module.set_bit_width(name, goals.weight_bits)
        if isinstance(module, QuantGRU):
            module.thresholds[name] = goals.delta_threshold
            module.delta = recipe.delta


def quantized_weights(model: nn.Module, recipe: Recipe) -> list[Weight]:
    """The matrices of a converted model."""
    weights = []
    for module in quant_modules(model):
        for name, parameter in module.matrices().items():
            goals = recipe.matrix(module.path, name)
            weights.append(
                Weight(
                    name=matrix_name(module.path, name),
                    parameter=parameter,
                    holder=module,
                    mask_name=f"{name}_mask",
                    pattern=make_pattern(goals.pattern, recipe.config),
                    density=goals.density,
                    bits=goals.weight_bits,
                    blocks=module.blocks,
                    named=recipe.names_density(module.path, name),
                )
            )
    return weights


def quant_modules(model: nn.Module) -> list[QuantModule]:
    """The quantized modules of a converted model."""
    return [module for module in model.modules() if isinstance(module, QuantModule)]


def _with_tables(cls: type[nn.Module]) -> type[nn.Module]:
    """`cls` with a forward in which sigmoid and tanh are the machine's tables.

    A subclass made here keeps the user's attributes, names and signature, as a wrapper module would
    not. While `function_mode` is set, that mode is active instead (calibration).
    """

    @functools.wraps(cls.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_exporting():
            return cls.forward(self, *args, **kwargs)
        with self.function_mode or TableFunctions():
            return cls.forward(self, *args, **kwargs)

    attributes = {"forward": forward, "function_mode": None, "__module__": cls.__module__}
    return type(f"Compressed{cls.__name__}", (cls,), attributes)
