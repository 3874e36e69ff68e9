"""The host operators: floats in the model's shapes to bytes in DDR and back, by
`spec.interface.Kind`.

A port's tensor becomes [batch, time, features], features in C order of the axes that remain,
whatever the order of its axes; axes that it does not have have size 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..spec.config import Config
from ..spec.interface import Kind, Port
from ..spec.numerics import COLUMN_MAX, COLUMN_MIN, VALUE_MAX, VALUE_MIN

BOUNDS = {Kind.COLUMNS: (COLUMN_MIN, COLUMN_MAX), Kind.VALUES: (VALUE_MIN, VALUE_MAX)}
ITEM_BYTES = 8


def as_array(value: Any, name: str) -> np.ndarray:
    """`value` as an array: NumPy's own rules, `__array__` and `__dlpack__`. Raises InputError
    naming the input."""
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InputError(f"input {name!r} cannot be read as an array: {error}") from error


def describe(port: Port) -> str:
    """The expected shape in words: `[batch, time, 64]`."""
    names = {port.batch_axis: "batch", port.time_axis: "time"}
    return f"[{', '.join(names.get(axis, str(size)) for axis, size in enumerate(port.shape))}]"


def check_shape(port: Port, array: np.ndarray) -> None:
    """Raise InputError unless `array` has the port's shape, batch and time being any positive
    number."""
    fits = array.ndim == len(port.shape) and all(
        given == size or (size == -1 and given >= 1)
        for given, size in zip(array.shape, port.shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"input {port.name!r} must have shape {describe(port)}, not {list(array.shape)}"
        )


def quantize(port: Port, array: np.ndarray) -> np.ndarray:
    """floor(x / scale + 0.5), saturated: `spec.numerics.quantize` on an array, in float64. Returns
    int64.

    Raises InputError when `array` is not of a floating type, or holds NaN or infinity.
    """
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"input {port.name!r} must be floating point, not {array.dtype}; convert it to float32"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        where = [int(index) for index in np.argwhere(bad)[0]]
        raise InputError(
            f"input {port.name!r} must be finite, not {array[tuple(where)]} at {where} "
            f"({bad.sum()} in all)"
        )
    low, high = BOUNDS[port.kind]
    scaled = np.floor(array.astype(np.float64) / port.scale + 0.5)
    return np.clip(scaled, low, high).astype(np.int64)


def check_integers(port: Port, array: np.ndarray) -> np.ndarray:
    """`array` as int64. Raises InputError unless it holds integers of the port's kind."""
    low, high = BOUNDS[port.kind]
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"input {port.name!r} must be integers, not {array.dtype}")
    if array.size and not low <= array.min() <= array.max() <= high:
        raise InputError(
            f"input {port.name!r} must be in {low}..{high}, not {array.min()}..{array.max()}"
        )
    return array.astype(np.int64)


def to_canonical(port: Port, array: np.ndarray) -> np.ndarray:
    """[batch, time, features] of a tensor in the model's shape."""
    if port.time_axis is None:
        array = np.expand_dims(array, 0)
    if port.batch_axis is None:
        array = np.expand_dims(array, 0)
    array = np.moveaxis(array, _canonical_axes(port), (0, 1))
    return array.reshape(array.shape[0], array.shape[1], -1)


def from_canonical(port: Port, array: np.ndarray) -> np.ndarray:
    """The tensor in the model's shape of [batch, time, features]."""
    rest = [
        size
        for axis, size in enumerate(port.shape)
        if axis not in (port.batch_axis, port.time_axis)
    ]
    array = array.reshape(array.shape[0], array.shape[1], *rest)
    array = np.moveaxis(array, (0, 1), _canonical_axes(port))
    if port.batch_axis is None:
        array = np.squeeze(array, 0)
    if port.time_axis is None:
        array = np.squeeze(array, 0)
    return np.ascontiguousarray(array)


def _canonical_axes(port: Port) -> tuple[int, int]:
    """(batch, time) axes in the tensor that has both: a missing batch is put first, a missing time
    before that."""
    missing = (port.batch_axis is None) + (port.time_axis is None)
    batch = 0 if port.batch_axis is None else port.batch_axis + missing
    if port.time_axis is None:
        return batch, 1 if port.batch_axis is None else 0
    return batch, port.time_axis + missing


def encode(port: Port, config: Config, features: np.ndarray) -> np.ndarray:
    """Bytes in DDR, uint8 [time, stride_bytes], of integer features [time, features]."""
    data = np.zeros((len(features), port.stride_bytes), np.uint8)
    positions = np.asarray(port.positions)
    if port.kind is Kind.COLUMNS:
        places = positions // config.group * ITEM_BYTES + positions % config.group
        data[:, places] = features.astype(np.int8).view(np.uint8)
    else:
        data.view("<i2")[:, positions] = features.astype("<i2")
    return data


def decode(port: Port, data: np.ndarray) -> np.ndarray:
    """int16 features [time, features] of an output's bytes in DDR [time, stride_bytes]."""
    return data.view("<i2")[:, np.asarray(port.positions)].astype(np.int16)


def dequantize(port: Port, integers: np.ndarray) -> np.ndarray:
    """float32 values of integers."""
    return (integers * np.float64(port.scale)).astype(np.float32)
