"""The host's part in a program file: a description as JSON, arrays beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .host import HostInput, HostLayer, HostNorm, HostOutput, HostTable

Arrays = dict[str, np.ndarray]
ACTIVATIONS = (None, "tanh", "relu", "gelu", "gelu_tanh", "sigmoid")
MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True, eq=False)
class Host:
    """What the host does before and after the accelerator; outputs by name, in the model's
    order."""

    input: HostInput
    outputs: dict[str, HostOutput]


def pack(host: Host) -> tuple[dict[str, Any], Arrays]:
    """A JSON value with names of arrays in their places, and the arrays."""
    arrays: Arrays = {}

    def put(array: np.ndarray | None) -> str | None:
        if array is None:
            return None
        name = f"host.{len(arrays)}"
        arrays[name] = np.ascontiguousarray(array, np.float32)
        return name

    given = host.input
    plain = {
        key: value for key, value in vars(given).items() if key not in ("tables", "norm", "axes")
    }
    body = {
        "input": {
            **plain,
            "axes": {name: list(axes) for name, axes in given.axes.items()},
            "tables": [{"rows": put(t.rows), "index": t.index} for t in given.tables],
            "norm": None
            if given.norm is None
            else {
                "weight": put(given.norm.weight),
                "bias": put(given.norm.bias),
                "eps": given.norm.eps,
            },
        },
        "outputs": [
            {
                "name": name,
                "tensor": output.name,
                "axes": list(output.axes),
                "first": output.first,
                "layers": [
                    {
                        "weight": put(layer.weight),
                        "bias": put(layer.bias),
                        "activation": layer.activation,
                    }
                    for layer in output.layers
                ],
            }
            for name, output in host.outputs.items()
        ],
    }
    return body, arrays


def unpack(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Host:
    """The host's part of `pack`'s results. Raises ValueError, KeyError or TypeError when something
    is missing or does not fit together."""

    def get(name: str, dimensions: int) -> np.ndarray:
        array = arrays[name]
        if array.dtype != np.float32 or array.ndim != dimensions or array.size > MOST_ELEMENTS:
            raise ValueError(
                f"array {name!r} must be float32 of {dimensions} axes and at most "
                f"{MOST_ELEMENTS} elements, not {array.dtype} {array.shape}"
            )
        return array

    data = dict(body["input"])
    norm = data.pop("norm")
    tables = [HostTable(get(t["rows"], 2), _text(t["index"])) for t in data.pop("tables")]
    axes = {str(name): (_axis(a[0]), int(a[1])) for name, a in data.pop("axes").items()}
    given = HostInput(**data, axes=axes, tables=tables)
    if norm is not None:
        given.norm = HostNorm(get(norm["weight"], 1), get(norm["bias"], 1), float(norm["eps"]))
    _check_input(given)
    outputs = {}
    for one in body["outputs"]:
        layers = [
            HostLayer(
                get(layer["weight"], 2),
                None if layer["bias"] is None else get(layer["bias"], 1),
                _activation(layer["activation"]),
            )
            for layer in one["layers"]
        ]
        where, first = (_axis(one["axes"][0]), int(one["axes"][1])), bool(one["first"])
        outputs[str(one["name"])] = HostOutput(str(one["tensor"]), where, first, layers)
    return Host(given, outputs)


def _check_input(given: HostInput) -> None:
    if not 1 <= given.width <= 1 << 16 or not 0 < given.scale < float("inf"):
        raise ValueError(f"a host input has width {given.width} and scale {given.scale}")
    if any(table.rows.shape[1] != given.width for table in given.tables):
        raise ValueError(f"embedding tables must have rows of {given.width}")
    if any(name not in given.axes for name in given.inputs):
        raise ValueError("every input must have axes")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _axis(value: Any) -> int | None:
    return None if value is None else int(value)


def _activation(value: Any) -> str | None:
    if value not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, not {value!r}")
    return value
