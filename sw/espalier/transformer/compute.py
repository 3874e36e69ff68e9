"""A float graph computed in torch: for calibration, and as the witness of the import."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from . import float_graph as fg
from .float_graph import FloatGraph, Reference, Value
from .functions import FUNCTIONS

Values = dict[Value, Tensor]
Parameters = dict[str, Tensor]


def compute(
    graph: FloatGraph, sample: Mapping[str, Tensor], parameters: Parameters | None = None
) -> Values:
    """Every value [tokens, width] for one sample: inputs by name, without a batch axis."""
    parameters = graph.parameters if parameters is None else parameters
    values: Values = {}
    for operation in graph.operations:
        if isinstance(operation, fg.Embed):
            values[operation.output] = embed(graph, sample, parameters)
        else:
            values[operation.output] = apply(operation, values, parameters)
    return values


def embed(graph: FloatGraph, sample: Mapping[str, Tensor], parameters: Parameters) -> Tensor:
    """The host's part: the sum of tables and its LayerNorm [tokens, width]."""
    operation = graph.embed
    tokens = next(iter(sample.values())).shape[0]
    total = sample[operation.given] if operation.given else torch.zeros(())
    for table in operation.tables:
        if table.index == "position":
            picked = table.rows[table.offset : table.offset + tokens]
        elif table.index is None:
            picked = table.rows[table.offset : table.offset + 1]
        else:
            picked = table.rows[sample[table.index].long()]
        total = total + picked.of(parameters) * table.factor
    norm = graph.host_norm
    return total if norm is None else layer_norm(norm, total, parameters)


def of(reference: Reference | None, parameters: Parameters) -> Tensor | None:
    return None if reference is None else reference.of(parameters)


def layer_norm(o: fg.LayerNorm, x: Tensor, parameters: Parameters) -> Tensor:
    return functional.layer_norm(
        x, x.shape[-1:], of(o.weight, parameters), of(o.bias, parameters), o.eps
    )


def apply(operation: fg.Operation, values: Values, parameters: Parameters) -> Tensor:
    """One operation's result from its inputs."""
    match operation:
        case fg.Linear(input=x, weight=weight, bias=bias):
            return functional.linear(values[x], weight.of(parameters), of(bias, parameters))
        case fg.LayerNorm(input=x):
            return layer_norm(operation, values[x], parameters)
        case fg.Activation(function=function, input=x):
            return FUNCTIONS[function](values[x])
        case fg.Add(a=a, b=b):
            return values[a] + values[b]
        case fg.Attention(query=q, key=k, value=v, heads=heads):
            parts = (values[x].unflatten(-1, (heads, -1)).transpose(-2, -3) for x in (q, k, v))
            result = functional.scaled_dot_product_attention(
                *parts, is_causal=operation.causal, scale=operation.scale
            )
            return result.transpose(-2, -3).flatten(-2)
        case _:
            raise TypeError(f"{type(operation).__name__} has no inputs")


def result(output: fg.Output, values: Values, parameters: Parameters) -> Tensor:
    """What the host makes of a sample's value: [tokens, width], or [width] of the first token."""
    x = values[output.value]
    if not output.first:
        return x
    x = x[0]
    for layer in output.layers:
        x = functional.linear(x, layer.weight.of(parameters), of(layer.bias, parameters))
        x = x if layer.activation is None else FUNCTIONS[layer.activation](x)
    return x
