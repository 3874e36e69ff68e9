"""A call's arguments as integers [batch, time, features] by port name, with the checks that span
several inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..spec.interface import Port
from . import ports

Tensors = dict[str, np.ndarray]
Convert = Callable[[Port, np.ndarray], np.ndarray]
Lengths = Sequence[int] | np.ndarray | None
Result = np.ndarray | tuple[np.ndarray, ...]


def gather(expected: Sequence[Port], given: Sequence[Any], convert: Convert) -> Tensors:
    """Integers of all inputs given. Raises InputError for a missing or surplus one, a wrong shape,
    type or value."""
    signature = ", ".join(f"{port.name} {ports.describe(port)}" for port in expected) or "nothing"
    if len(given) > len(expected):
        raise InputError(f"takes at most {len(expected)} inputs ({signature}), not {len(given)}")
    tensors = {}
    for port, value in zip(expected, [*given, *[None] * (len(expected) - len(given))], strict=True):
        if value is not None:
            array = ports.as_array(value, port.name)
            ports.check_shape(port, array)
            tensors[port.name] = ports.to_canonical(port, convert(port, array))
        elif not port.optional:
            raise InputError(
                f"input {port.name!r} {ports.describe(port)} is missing; inputs: {signature}"
            )
    return tensors


def add_time(expected: Sequence[Port], given: Sequence[Any]) -> tuple[list[Any], bool]:
    """Inputs of one time step with a time axis of 1 where they lack it, and whether they lacked
    it."""
    bare, values = False, list(given)
    for index, (port, value) in enumerate(zip(expected, given, strict=False)):
        if value is None or port.time_axis is None:
            continue
        array = ports.as_array(value, port.name)
        if array.ndim == len(port.shape) - 1:
            bare, array = True, np.expand_dims(array, port.time_axis)
        values[index] = array
    return values, bare


def extent(expected: Sequence[Port], tensors: Tensors) -> tuple[int, int]:
    """(batch, time) of a call; 1 where no input has the axis. Raises InputError when the inputs
    disagree."""
    sizes = []
    for axis, word in enumerate(("batch", "time")):
        having = [
            p
            for p in expected
            if p.name in tensors and (p.batch_axis, p.time_axis)[axis] is not None
        ]
        found = {port.name: tensors[port.name].shape[axis] for port in having}
        if len(set(found.values())) > 1:
            raise InputError(f"inputs must have one {word} size, not {found}")
        sizes.append(next(iter(found.values()), 1))
    return sizes[0], sizes[1]


def spread(tensors: Tensors, samples: int) -> Tensors:
    """All tensors with the batch size; an input without a batch axis serves every sample."""
    return {name: np.broadcast_to(a, (samples, *a.shape[1:])) for name, a in tensors.items()}


def check_lengths(lengths: Lengths, samples: int, steps: int) -> list[int]:
    """Time steps of every sample. Raises InputError unless there is one in 1..steps for each."""
    if lengths is None:
        return [steps] * samples
    given = ports.as_array(lengths, "lengths")
    if given.shape != (samples,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"lengths must be {samples} integers, not {given.dtype} {list(given.shape)}"
        )
    if given.min() < 1 or given.max() > steps:
        raise InputError(f"lengths must be in 1..{steps}, not {given.min()}..{given.max()}")
    return [int(length) for length in given]


def to_user(
    expected: Sequence[Port], arrays: Sequence[np.ndarray], *, real: bool, drop_time: bool = False
) -> Result:
    """Outputs [batch, time, features] in the model's shapes, float32 or the machine's integers;
    one, or a tuple."""
    results = []
    for port, array in zip(expected, arrays, strict=True):
        tensor = ports.from_canonical(port, ports.dequantize(port, array) if real else array)
        if drop_time and port.time_axis is not None:
            tensor = np.squeeze(tensor, port.time_axis)
        results.append(tensor)
    return results[0] if len(results) == 1 else tuple(results)
