"""Weights and biases that take back what rounding does, seen on samples.

Layer by layer, from inputs whose layers are corrected already, weights are rounded to the columns
that they will see, and the results held against the float graph's: chords of a table, clipped
ranges and weights whose inputs have a mean move a row's results to one side, for every token alike,
which its bias takes back. The shift is the median over the tokens: a few tokens of some models
are a hundred times as loud as all others, and their errors would decide a mean.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv
1906.04721, section 4.2, with measured errors instead of expected ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..quantized.weights import make_matrix
from ..spec import numerics
from ..tokens import graph as tg
from ..tokens import host
from ..tokens.evaluate import apply_samples, columns, saturate
from .choices import Plan
from .compute import Parameters, compute
from .float_graph import FloatGraph, Linear, Reference, Value
from .outliers import grid_scales
from .rounding import round_columns

MOST_ELEMENTS = 1 << 26
"""Of float results that are kept: samples are left out when there would be more."""


@dataclass(eq=False)
class Corrections:
    """shift: what to add to the biases [rows], by linear layer's result. weights: elements of
    parameters and their rounded values."""

    shift: dict[Value, Tensor] = field(default_factory=dict)
    weights: list[tuple[Reference, Tensor]] = field(default_factory=list)


@torch.no_grad()
def corrections(
    tokens: FloatGraph,
    graph: tg.TokenGraph,
    plan: Plan,
    samples: Sequence[Mapping[str, Tensor]],
    parameters: Parameters,
    before: host.HostInput,
    rounding: bool = True,
) -> Corrections:
    """Of all linear layers; `graph` is the integer one, whose matrices are replaced meanwhile."""
    made = {id(o): linear for o, linear in _pairs(tokens, graph)}
    samples = list(_few(tokens, samples))
    exact = _exact(tokens, samples, parameters)
    parts = [{name: x.numpy() for name, x in sample.items()} for sample in samples]
    inputs = [host.to_integers(before, host.embed(before, part)) for part in parts]
    cuts = np.cumsum([len(x) for x in inputs])[:-1]
    values: dict[tg.Tensor, np.ndarray] = {}
    found, free = Corrections(), _free(tokens) if rounding else set()
    last = _last_uses(graph)
    for number, operation in enumerate(graph.operations):
        values = {tensor: x for tensor, x in values.items() if last[tensor] >= number}
        if isinstance(operation, tg.Input):
            values[operation.output] = np.concatenate(inputs).astype(np.int64)
            continue
        linear = made.get(id(operation))
        if linear is not None and linear.weight.parameter in free:
            _round(operation, linear, plan, parameters, columns(values[operation.input]), found)
        result = apply_samples(operation, values, cuts)
        if linear is not None:
            value, scale = linear.output, operation.output.scale
            steps = _shift(exact[value], plan.divided.get(value), result, scale)
            shift = torch.from_numpy((steps * scale).astype(np.float32))
            found.shift[value] = shift * plan.divided.get(value, 1)
            result = saturate(result + np.rint(_with_copies(plan, value, steps)).astype(np.int64))
        values[operation.output] = result
    return found


def _free(tokens: FloatGraph) -> set[str]:
    """Parameters whose elements belong to one linear layer each, and to nothing else."""
    places: dict[str, list[Tensor]] = {}
    for linear in tokens.linears:
        own = linear.weight.places
        places.setdefault(linear.weight.parameter, []).append(own[own >= 0])
    others = {table.rows.parameter for table in tokens.embed.tables}
    layers = (layer for output in tokens.outputs.values() for layer in output.layers)
    others |= {layer.weight.parameter for layer in layers}
    return {
        name
        for name, parts in places.items()
        if name not in others and len(torch.cat(parts).unique()) == sum(len(p) for p in parts)
    }


def _round(
    operation: tg.Linear,
    linear: Linear,
    plan: Plan,
    parameters: Parameters,
    inputs: np.ndarray,
    found: Corrections,
) -> None:
    """Round a matrix to the columns [tokens, inputs] that it will see, unless it was before."""
    rows, width = linear.output.width, linear.input.width
    factors = torch.ones(width)
    for each in (plan.smooth, plan.divided):
        factors = factors * each.get(linear.input, 1)
    divided = plan.divided.get(linear.output, torch.ones(rows))[:, None]
    weight = linear.weight.of(parameters).detach() * factors / divided
    bits = operation.matrix.bit_width
    if grid_scales(weight, numerics.WEIGHT_LEVELS[bits]) is not None:
        return
    x, added = torch.from_numpy(inputs.astype(np.float32)), plan.copies.get(linear.input)
    seen = x[:, :width]
    if added is not None:  # copies share their original's weight
        seen = seen.index_add(1, added.channels, x[:, width:])
    unit = operation.input.scale * (1 << numerics.COLUMN_SHIFT)
    factor = operation.rows.multiplier / np.exp2(operation.rows.shift)
    scale = torch.from_numpy(factor * (operation.output.scale / unit)).float()[:rows]
    integers = round_columns(weight, scale, bits, seen.T @ seen)
    found.weights.append((linear.weight, integers * scale[:, None] * divided / factors))
    if added is not None:
        integers = torch.cat([integers, integers[:, added.channels]], dim=1)
    copied = plan.copies.get(linear.output)
    if copied is not None:
        integers = torch.cat([integers, integers[copied.channels]])
    operation.matrix = make_matrix(integers, bits)


def _last_uses(graph: tg.TokenGraph) -> dict[tg.Tensor, int]:
    """The number of the last operation with each tensor."""
    return {
        tensor: number
        for number, operation in enumerate(graph.operations)
        for tensor in vars(operation).values()
        if isinstance(tensor, tg.Tensor)
    }


def _pairs(tokens: FloatGraph, graph: tg.TokenGraph) -> Iterator[tuple[tg.Linear, Linear]]:
    """Integer and float linear layers, which have one order."""
    integer = [o for o in graph.operations if isinstance(o, tg.Linear)]
    return zip(integer, tokens.linears, strict=True)


def _few(
    tokens: FloatGraph, samples: Sequence[Mapping[str, Tensor]]
) -> Iterator[Mapping[str, Tensor]]:
    """As many samples as may be kept, at least one."""
    width, count = sum(linear.output.width for linear in tokens.linears), 0
    for sample in samples:
        count += len(next(iter(sample.values())))
        yield sample
        if count * width > MOST_ELEMENTS:
            return


def _exact(
    tokens: FloatGraph, samples: Sequence[Mapping[str, Tensor]], parameters: Parameters
) -> dict[Value, np.ndarray]:
    """Float results of all linear layers, samples one after another."""
    rows: dict[Value, list[Tensor]] = {linear.output: [] for linear in tokens.linears}
    for sample in samples:
        values = compute(tokens, sample, parameters)
        for value, parts in rows.items():
            parts.append(values[value])
    return {value: torch.cat(parts).numpy() for value, parts in rows.items()}


def _shift(
    exact: np.ndarray, divided: Tensor | None, result: np.ndarray, scale: float
) -> np.ndarray:
    """Medians [rows] of what is missing, in units of the result; copied rows are left out."""
    exact = exact if divided is None else exact / divided.numpy()
    steps = (exact / scale).clip(numerics.VALUE_MIN, numerics.VALUE_MAX)
    return np.median(steps - result[:, : steps.shape[1]], axis=0)


def _with_copies(plan: Plan, value: Value, steps: np.ndarray) -> np.ndarray:
    added = plan.copies.get(value)
    if added is None:
        return steps
    return np.concatenate([steps, steps[added.channels.numpy()]])
