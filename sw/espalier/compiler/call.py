"""The example call that a model is compiled with: its arguments, and their batch and time axes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import InputError
from .builder import InputSpec


@dataclass(frozen=True)
class Call:
    """The model's example call: arguments by name, and the batch and time axes of its tensors."""

    model: nn.Module
    arguments: dict[str, Any]
    specs: tuple[InputSpec, ...] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}

    def positional(self) -> tuple[Any, ...]:
        """All arguments by position, with defaults. Raises InputError where one has none."""
        bound = inspect.signature(self.model.forward).bind(**self.arguments)
        bound.apply_defaults()
        if bound.kwargs:
            raise InputError(
                f"forward's keyword-only parameters {sorted(bound.kwargs)} cannot be calibrated "
                "here; compress the model first (espalier.compress)"
            )
        return bound.args


def bind(model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None) -> Call:
    """The example arguments by the names of `model.forward`. Raises InputError."""
    args = args if isinstance(args, tuple | list) else (args,)
    try:
        bound = inspect.signature(model.forward).bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise InputError(f"args do not fit the model's forward: {error}") from error
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise InputError(
                f"forward's parameter {name!r} must be an ordinary one that has a name"
            )
        arguments.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    for name, value in arguments.items():
        _check(name, value)
    if not any(isinstance(value, Tensor) for value in arguments.values()):
        raise InputError("args must have at least one tensor: an example input of the model")
    return Call(model, arguments)


def _check(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if not value.dtype.is_floating_point or value.ndim == 0 or value.numel() == 0:
            shape = tuple(value.shape)
            raise InputError(
                f"example input {name!r} must be a non-empty float tensor, not {value.dtype} "
                f"of {shape}"
            )
    elif any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
        raise InputError(
            f"example input {name!r} must be a tensor, not a {type(value).__name__} of tensors"
        )


def with_axes(call: Call, times: Mapping[str, int]) -> Call:
    """The call with the batch axis of every tensor, given the time axes by input name.

    The batch axis of an input with time is the leading one that remains, but [T, features] has
    none; that of another input is its first, or the middle one of a state [layers, B, H].
    """
    specs = []
    for name, tensor in call.tensors.items():
        time = times.get(name)
        batch = _batch_axis(tensor.ndim, time, call, times)
        specs.append(InputSpec(name, tuple(tensor.shape), batch, time))
    sizes = {
        spec.name: spec.shape[spec.batch_axis] for spec in specs if spec.batch_axis is not None
    }
    if len(set(sizes.values())) > 1:
        raise InputError(f"the example inputs must have one batch size, not {sizes}")
    steps = {spec.name: spec.shape[spec.time_axis] for spec in specs if spec.time_axis is not None}
    if len(set(steps.values())) > 1:
        raise InputError(f"the example inputs must have one number of time steps, not {steps}")
    return replace(call, specs=tuple(specs))


def _batch_axis(ndim: int, time: int | None, call: Call, times: Mapping[str, int]) -> int | None:
    if time is not None:
        return None if ndim == 1 or (ndim == 2 and time == 0) else int(time == 0)
    if times and all(
        _batch_axis(call.tensors[name].ndim, axis, call, {}) is None for name, axis in times.items()
    ):
        return None
    if ndim == 1:
        return None
    return 1 if times and ndim == 3 else 0
