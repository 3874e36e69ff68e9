"""The host's part of a float graph as plain data."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..tokens.host import HostInput, HostLayer, HostNorm, HostOutput, HostTable
from . import float_graph as fg
from .compute import Parameters, of
from .float_graph import FloatGraph


def host_input(graph: FloatGraph, parameters: Parameters, scale: float) -> HostInput:
    """Tables, norm and inputs; `scale` is the input tensor's."""
    embed, norm = graph.embed, graph.host_norm
    return HostInput(
        width=embed.output.width,
        scale=scale,
        inputs=list(graph.inputs),
        axes=dict(graph.axes),
        integers=list(graph.integers),
        tables=[_table(table, parameters) for table in embed.tables],
        given=embed.given,
        norm=None if norm is None else _norm(norm, parameters),
        mask=graph.mask.name if graph.mask else None,
        mask_kept=graph.mask.kept if graph.mask else True,
        most_tokens=graph.most_tokens,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _table(table: fg.Table, parameters: Parameters) -> HostTable:
    rows = table.rows.of(parameters) * table.factor
    if table.index is None:
        rows = rows[table.offset : table.offset + 1]
    elif table.index == "position":
        rows = rows[table.offset :]
    return HostTable(_array(rows), table.index)


def _norm(norm: fg.LayerNorm, parameters: Parameters) -> HostNorm:
    width = norm.output.width
    weight, bias = of(norm.weight, parameters), of(norm.bias, parameters)
    return HostNorm(
        np.ones(width, np.float32) if weight is None else _array(weight),
        np.zeros(width, np.float32) if bias is None else _array(bias),
        norm.eps,
    )


def host_outputs(graph: FloatGraph, parameters: Parameters) -> dict[str, HostOutput]:
    """What the host does with every result."""
    return {name: _output(name, output, parameters) for name, output in graph.outputs.items()}


def _output(name: str, output: fg.Output, parameters: Parameters) -> HostOutput:
    layers = []
    for layer in output.layers:
        bias = of(layer.bias, parameters)
        weight = _array(layer.weight.of(parameters))
        layers.append(HostLayer(weight, None if bias is None else _array(bias), layer.activation))
    return HostOutput(name, output.axes, output.first, layers)
