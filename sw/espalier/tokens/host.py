"""The host's part of a transformer: embedding, its LayerNorm, pooling (NumPy only).

Plain data that a program file keeps, and the functions that apply it. The accelerator gets and
gives the 16-bit tensors in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..spec import numerics


@dataclass(eq=False)
class HostTable:
    """rows [n, width] float32, of which each token gets one.

    index: the name of an integer input with the row numbers; "position": row number is the token's;
    None: row 0 for all tokens.
    """

    rows: np.ndarray
    index: str | None


@dataclass(eq=False)
class HostNorm:
    """LayerNorm over the width: (x - mean) / sqrt(variance + eps)·weight + bias."""

    weight: np.ndarray
    bias: np.ndarray
    eps: float


@dataclass(eq=False)
class HostLayer:
    """activation(weight @ x + bias), activation None, "tanh", "relu", "gelu", "gelu_tanh" or
    "sigmoid"."""

    weight: np.ndarray
    bias: np.ndarray | None
    activation: str | None


@dataclass(eq=False)
class HostInput:
    """From the model's inputs to one [tokens, width] of real numbers per sample.

    inputs: names of all inputs; integers: of those that are indices. axes: where samples (None: a
    single one) and tokens lie in each. given: the float input, if there is one.
    mask: the input that says which tokens count, with mask_kept as its value for those.
    """

    width: int
    scale: float
    inputs: list[str]
    axes: dict[str, tuple[int | None, int]]
    integers: list[str] = field(default_factory=list)
    tables: list[HostTable] = field(default_factory=list)
    given: str | None = None
    norm: HostNorm | None = None
    mask: str | None = None
    mask_kept: bool = True
    most_tokens: int = 0


@dataclass(eq=False)
class HostOutput:
    """A result: the tensor `name` of every token, or of the first one through layers.

    axes: where samples and tokens lie in the result. first: only of the first token.
    """

    name: str
    axes: tuple[int | None, int]
    first: bool = False
    layers: list[HostLayer] = field(default_factory=list)


def samples(host: HostInput, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The index and float inputs of each sample, tokens first, without padding.

    Raises InputError for missing or unknown inputs, wrong shapes, and padding that is not on the
    right.
    """
    wanted = [name for name in host.inputs if name != host.mask]
    unknown = [name for name in inputs if name not in host.inputs]
    missing = [name for name in wanted if name not in inputs]
    if unknown or missing:
        raise InputError(
            f"inputs must be {', '.join(host.inputs)}; missing are {missing}, unknown {unknown}"
        )
    arrays = {name: _batched(host, name, np.asarray(value)) for name, value in inputs.items()}
    shape = arrays[wanted[0]].shape[:2]
    for name, array in arrays.items():
        if array.shape[:2] != shape:
            raise InputError(
                f"{name} must have {shape[0]} samples of {shape[1]} tokens like "
                f"{wanted[0]}, not {array.shape[0]} of {array.shape[1]}"
            )
    lengths = [shape[1]] * shape[0]
    if host.mask is not None and host.mask in arrays:
        kept = (arrays[host.mask] != 0) == host.mask_kept
        lengths = [_length(host.mask, row) for row in kept]
    return [{name: arrays[name][b, :length] for name in wanted} for b, length in enumerate(lengths)]


def _batched(host: HostInput, name: str, array: np.ndarray) -> np.ndarray:
    """[samples, tokens, ...]."""
    batch, tokens = host.axes[name]
    dimensions = (batch is not None) + 1 + (name == host.given)
    if array.ndim != dimensions:
        raise InputError(f"{name} must have {dimensions} axes, not the shape {array.shape}")
    if name == host.given and array.shape[-1] != host.width:
        raise InputError(f"{name} must have {host.width} features, not {array.shape[-1]}")
    if batch is None:
        return array[None]
    return np.moveaxis(array, (batch, tokens), (0, 1))


def _length(name: str, kept: np.ndarray) -> int:
    length = int(kept.sum())
    if length == 0 or not kept[:length].all():
        raise InputError(
            f"{name} must keep the first tokens of every sample, at least one: padding "
            "must be on the right"
        )
    return length


def embed(host: HostInput, sample: Mapping[str, np.ndarray], first: int = 0) -> np.ndarray:
    """Real [tokens, width] float32 of one sample, whose tokens follow `first` others. Raises
    InputError for indices out of range, and for no tokens or more than the model has positions."""
    tokens = len(next(iter(sample.values())))
    if tokens == 0 or (host.most_tokens and first + tokens > host.most_tokens):
        raise InputError(
            f"a sample must have 1..{host.most_tokens} tokens, not {first + tokens}: so many "
            "positions has the model, or memory the program (max_length)"
        )
    total = np.zeros((tokens, host.width), np.float32)
    if host.given is not None:
        total = total + np.asarray(sample[host.given], np.float32)
    for table in host.tables:
        total = total + _rows(table, sample, first, tokens)
    return total if host.norm is None else normalise(host.norm, total)


def _rows(
    table: HostTable, sample: Mapping[str, np.ndarray], first: int, tokens: int
) -> np.ndarray:
    if table.index is None:
        return table.rows[0]
    if table.index == "position":
        return table.rows[first : first + tokens]
    index = np.asarray(sample[table.index])
    if not np.issubdtype(index.dtype, np.integer):
        raise InputError(f"{table.index} must be integers, not {index.dtype}")
    wrong = index[(index < 0) | (index >= len(table.rows))]
    if len(wrong):
        raise InputError(f"{table.index} must be in 0..{len(table.rows) - 1}, not {wrong[0]}")
    return table.rows[index]


def normalise(norm: HostNorm, x: np.ndarray) -> np.ndarray:
    """LayerNorm over the last axis, in float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return (centred / np.sqrt(variance + norm.eps) * norm.weight + norm.bias).astype(np.float32)


def to_integers(host: HostInput, x: np.ndarray) -> np.ndarray:
    """int16 elements of real values: rounded, saturated. Raises InputError when not finite."""
    if not np.isfinite(x).all():
        raise InputError("values must be finite to be quantized; there is NaN or infinity")
    rounded = np.floor(x.astype(np.float64) / host.scale + 0.5)
    return rounded.clip(numerics.VALUE_MIN, numerics.VALUE_MAX).astype(np.int16)


def finish(output: HostOutput, x: np.ndarray) -> np.ndarray:
    """A sample's result from real [tokens, width], or from [1.., width] with the first token."""
    if not output.first:
        return x
    x = x[0]
    for layer in output.layers:
        x = layer.weight @ x
        x = x if layer.bias is None else x + layer.bias
        x = x if layer.activation is None else _activate(layer.activation, x)
    return x


def _activate(function: str, x: np.ndarray) -> np.ndarray:
    if function == "relu":
        return np.maximum(x, 0)
    if function == "tanh":
        return np.tanh(x)
    known = {"gelu": numerics.gelu, "gelu_tanh": numerics.gelu_tanh, "sigmoid": numerics.sigmoid}
    return np.array([known[function](float(each)) for each in x.flat], x.dtype).reshape(x.shape)


def stack(output: HostOutput, results: list[np.ndarray]) -> np.ndarray:
    """Samples' results as the model has them; shorter ones end with zeros."""
    batch, tokens = output.axes
    if output.first:
        return np.stack(results) if batch is not None else results[0]
    if batch is None:
        return results[0]
    longest = max(len(each) for each in results)
    padded = [np.pad(each, ((0, longest - len(each)), (0, 0))) for each in results]
    return np.moveaxis(np.stack(padded), (0, 1), (batch, tokens))
