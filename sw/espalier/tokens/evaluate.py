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
            total = product(columns(values[x]), matrix.weight.T)
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


def apply_samples(
    operation: Operation, values: Mapping[Tensor, np.ndarray], cuts: np.ndarray
) -> np.ndarray:
    """One operation's result for samples one after another, cut at `cuts`; attention stays within
    each."""
    if not isinstance(operation, Attention):
        return apply(operation, values)
    names = operation.query, operation.key, operation.value
    parts = zip(*(np.split(values[name], cuts) for name in names), strict=True)
    return np.concatenate([apply(operation, dict(zip(names, part, strict=True))) for part in parts])


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


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of 8-bit integers: exact in float64, whose product is fast."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def layer_norm(operation: LayerNorm, x: np.ndarray) -> np.ndarray:
    total, squares = x.sum(axis=1, keepdims=True), (x * x).sum(axis=1, keepdims=True)
    scalar = moments_scalar(total, squares, x.shape[1], operation.gain)
    value = saturate(numerics.scale_by_scalar(x, *scalar))
    return saturate(saturate(numerics.amplify(value, operation.factor)) + operation.offset)


def attention(o: Attention, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    limit, tokens = numerics.WEIGHT_LEVELS[8], len(query)
    q, k, v = (
        columns(x).reshape(tokens, o.heads, o.head_size).swapaxes(0, 1) for x in (query, key, value)
    )
    k, v = k.clip(-limit, limit), v.clip(-limit, limit)
    scores = numerics.scale_sum(product(q, k.swapaxes(1, 2)), o.multiplier, o.shift, 0)
    scores, exp = saturate(scores), entries("exp", 0, 0)
    seen = np.tri(tokens, dtype=bool) if o.causal else np.ones((tokens, tokens), bool)
    largest = np.where(seen, scores, numerics.VALUE_MIN).max(axis=2, keepdims=True)
    distance = saturate(numerics.scale_by_scalar(scores, *maximum_scalar(largest, SCORE_GAIN)))
    e = np.where(seen, columns(look_up(exp, np.minimum(distance, 0))), 0)
    divide = mass_scalar(e.sum(axis=2, keepdims=True), o.gain)
    result = saturate(numerics.scale_by_scalar(product(e, v), *divide, 0))
    return result.swapaxes(0, 1).reshape(tokens, -1)


# The scalars of `numerics`, which are made of Python's integers, for arrays; tests hold them equal.


def maximum_scalar(maximum: np.ndarray, gain: int) -> tuple[int, int, np.ndarray]:
    multiplier, shift, _ = numerics.maximum_scalar(0, gain)
    return multiplier, shift, -(maximum << gain)


def mass_scalar(mass: np.ndarray, gain: int) -> tuple[np.ndarray, np.ndarray]:
    one = 1 << (numerics.SHIFTS[-1] + numerics.COLUMN_SHIFT + gain)
    return narrow_scale(one // np.maximum(mass, 1))


def moments_scalar(
    total: np.ndarray, squares: np.ndarray, count: int, gain: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    spread = count * squares - total * total + count * count
    root = square_root(spread << (2 * numerics.NORM_BITS))
    bits = gain + numerics.NORM_BITS
    multiplier, shift = narrow_scale((count << (numerics.SHIFTS[-1] + bits)) // root)
    offset = (np.abs(total) << bits) // root
    return multiplier, shift, (-np.sign(total) * offset).clip(numerics.BIAS_MIN, numerics.BIAS_MAX)


def square_root(value: np.ndarray) -> np.ndarray:
    """The root of int64 values below 2^62, rounded down."""
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root -= root * root > value
    return root + ((root + 1) * (root + 1) <= value)


def narrow_scale(quotient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    limit = 1 << numerics.MULTIPLIER_BITS
    multiplier = np.full_like(quotient, limit - 1)
    shift = np.full_like(quotient, numerics.SHIFTS[0])
    for candidate in numerics.SHIFTS:
        narrowed = quotient >> (numerics.SHIFTS[-1] - candidate)
        fits = narrowed < limit
        multiplier, shift = np.where(fits, narrowed, multiplier), np.where(fits, candidate, shift)
    return multiplier, shift
