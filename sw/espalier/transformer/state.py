"""What a `QuantTransformer` keeps beside its weights: bits and scales, as text in one tensor.

Numbers are written so that they are read back bit for bit; values go by their names, which are the
same whenever the same model is imported. safetensors and `torch.load(weights_only=True)` take it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .choices import Plan
from .float_graph import FloatGraph, Value
from .outliers import Copies

FORMAT = "espalier transformer 1"
VECTORS = "smooth", "divided", "shift"
"""Of a plan: one number for each channel."""


def pack(bits: Mapping[Value, int], plan: Plan | None) -> Tensor:
    """uint8 [bytes]: JSON of weight bits and, once calibrated, of all scales."""
    body = {"format": FORMAT, "bits": _named(bits), "plan": None if plan is None else _plan(plan)}
    return torch.frombuffer(bytearray(json.dumps(body).encode()), dtype=torch.uint8)


def unpack(state: Tensor, graph: FloatGraph) -> tuple[dict[Value, int], Plan | None]:
    """Bits and plan of `pack`'s result, for the values of `graph`.

    Raises InputError when it is damaged, or of another model.
    """
    values = by_name(graph)
    try:
        body = json.loads(bytes(state.cpu().numpy()))
        if body["format"] != FORMAT:
            raise InputError(f"scales must be {FORMAT!r}, not {body['format']!r}")
        bits = {values[name]: int(each) for name, each in body["bits"].items()}
        plan = None if body["plan"] is None else _read_plan(body["plan"], values)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"a transformer's scales do not fit this model: {error}") from None
    return bits, plan


def pack_example(example: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The tensors among a model's example arguments, and JSON of the others.

    Raises InputError for arguments that a file cannot keep.
    """
    tensors = {name: value for name, value in example.items() if isinstance(value, Tensor)}
    others = {name: value for name, value in example.items() if name not in tensors}
    try:
        return tensors, json.dumps(others)
    except TypeError as error:
        raise InputError(
            f"a file keeps example inputs that are tensors, numbers, text or None; {error}"
        ) from None


def by_name(graph: FloatGraph) -> dict[str, Value]:
    """The values that have bits or scales."""
    return {operation.output.name: operation.output for operation in graph.operations}


def _named(values: Mapping[Value, Any]) -> dict[str, Any]:
    return {value.name: each for value, each in values.items()}


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "main": _named(plan.main),
        "column": _named(plan.column),
        "gains": _named(plan.gains),
        **{
            key: {value.name: vector.tolist() for value, vector in getattr(plan, key).items()}
            for key in VECTORS
        },
        "copies": {
            value.name: [each.channels.tolist(), each.shift.tolist(), each.limit]
            for value, each in plan.copies.items()
        },
    }


def _read_plan(body: Mapping[str, Any], values: Mapping[str, Value]) -> Plan:
    return Plan(
        main={values[name]: float(scale) for name, scale in body["main"].items()},
        column={values[name]: float(scale) for name, scale in body["column"].items()},
        gains={values[name]: int(gain) for name, gain in body["gains"].items()},
        copies={
            values[name]: Copies(torch.tensor(channels), torch.tensor(shift), float(limit))
            for name, (channels, shift, limit) in body["copies"].items()
        },
        **{
            key: {values[name]: _vector(values[name], x) for name, x in body[key].items()}
            for key in VECTORS
        },
    )


def _vector(value: Value, numbers: list[float]) -> Tensor:
    if len(numbers) != value.width:
        raise ValueError(f"{value.name} has {value.width} channels, not {len(numbers)}")
    return torch.from_numpy(np.array(numbers, np.float32))
