"""A token graph computed as its docstrings say, in NumPy: the second witness of every program."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..spec import numerics
from .graph import (
    SCORE_GAIN,
    Add,
    Attention,
    Input,
    LayerNorm,
    Linear,
    Operation,
    Relu,
    Rescale,
    Table,
    Tensor,
    TokenGraph,
)

Values = dict[Tensor, np.ndarray]


def evaluate(
    graph: TokenGraph, tokens: np.ndarray, known: Mapping[Tensor, np.ndarray] = {}
) -> Values:
    """Every tensor of the graph, int64 [tokens, width], for the input [tokens, width].

    `known` replaces results: an operation is then checked from given inputs alone.
    """
    values: Values = {}
    for operation in graph.operations:
        if isinstance(operation, Input):
            values[operation.output] = np.asarray(tokens, np.int64)
        elif operation.output not in known:
            values[operation.output] = apply(operation, values)
        if operation.output in known:
            values[operation.output] = np.asarray(known[operation.output], np.int64)
    return values


def apply(operation: Operation, values: Mapping[Tensor, np.ndarray]) -> np.ndarray:
    """One operation's result from its inputs."""
    match operation:
        case Linear(input=x, matrix=matrix, rows=rows):
            total = columns(values[x]) @ matrix.weight.astype(np.int64).T
            return saturate(numerics.scale_sum(total, rows.multiplier, rows.shift, rows.bias))
        case Table(input=x):
            return table(operation, values[x])
        case Relu(input=x):
            return np.maximum(values[x], 0)
        case Rescale(input=x):
            return saturate(numerics.scale_sum(values[x], *operation.factor, 0))
        case Add(a=a, b=b):
            return saturate(values[a] + values[b])
        case LayerNorm(input=x):
            return layer_norm(operation, values[x])
        case Attention(query=q, key=k, value=v):
            return attention(operation, values[q], values[k], values[v])
        case _:
            raise TypeError(f"{type(operation).__name__} has no inputs")


def saturate(value: np.ndarray) -> np.ndarray:
    return np.clip(value, numerics.VALUE_MIN, numerics.VALUE_MAX)


def columns(value: np.ndarray) -> np.ndarray:
    """Upper bytes: what products take."""
    return numerics.column_input(value).clip(numerics.COLUMN_MIN, numerics.COLUMN_MAX)


def look_up(entries: list[tuple[int, int]], value: np.ndarray) -> np.ndarray:
    base, slope = np.array(entries, np.int64).T
    where = numerics.table_segment(value)
    return saturate(numerics.table_value(value, base[where], slope[where]))


def entries(function: str, input_scale: float, output_scale: float) -> list[tuple[int, int]]:
    """The table of a function of chosen (numerics.SHAPES) or given (FUNCTIONS) scales."""
    if function in numerics.SHAPES:
        return numerics.make_table(numerics.SHAPES[function], input_scale, output_scale)
    return numerics.make_table(*numerics.FUNCTIONS[function])


def table(operation: Table, x: np.ndarray) -> np.ndarray:
    scales = operation.input.scale, operation.output.scale
    return look_up(entries(operation.function, *scales), x)


def layer_norm(operation: LayerNorm, x: np.ndarray) -> np.ndarray:
    scalars = [
        numerics.moments_scalar(int(row.sum()), int((row * row).sum()), len(row), operation.gain)
        for row in x
    ]
    multiplier, shift, bias = np.array(scalars, np.int64).T[:, :, None]
    value = saturate(numerics.scale_sum(x, multiplier, shift, bias))
    return saturate(saturate(numerics.amplify(value, operation.factor)) + operation.offset)


def attention(o: Attention, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    limit, tokens = numerics.WEIGHT_LEVELS[8], len(query)
    q, k, v = (columns(x).reshape(tokens, o.heads, o.head_size) for x in (query, key, value))
    k, v = k.clip(-limit, limit), v.clip(-limit, limit)
    scores = numerics.scale_sum(np.einsum("ihd,jhd->hij", q, k), o.multiplier, o.shift, 0)
    scores, exp = saturate(scores), entries("exp", 0, 0)
    result = np.zeros_like(v)
    for head in range(o.heads):
        for i in range(tokens):
            seen = i + 1 if o.causal else tokens
            s = scores[head, i, :seen]
            scalar = numerics.maximum_scalar(int(s.max()), SCORE_GAIN)
            e = columns(look_up(exp, saturate(numerics.scale_sum(s, *scalar))))
            divide = numerics.mass_scalar(int(e.sum()), o.gain)
            result[i, head] = saturate(numerics.scale_sum(e @ v[:seen, head], *divide))
    return result.reshape(tokens, -1)
