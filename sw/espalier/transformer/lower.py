"""From a float graph and its plan of scales to the integers of a `TokenGraph`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import CapacityError
from ..quantized.weights import integer_weight, largest_scale, make_matrix, make_rows, row_scales
from ..spec import numerics
from ..tokens import graph as tg
from . import float_graph as fg
from .choices import Plan, bias_of
from .compute import Parameters, of
from .float_graph import FloatGraph, Value
from .outliers import grid_scales

UNIT = 1 << numerics.COLUMN_SHIFT
FACTOR = 1 << numerics.FACTOR_BITS


class FittedScales:
    """Row scales of weights, kept as long as weights, bits and limits stay as they are."""

    def __init__(self) -> None:
        self._known: dict[Value, tuple[Tensor, int, float, Tensor]] = {}

    def fit(self, value: Value, weight: Tensor, bits: int, limit: float) -> Tensor:
        """Scales [rows] of the linear layer that gives `value`."""
        known = self._known.get(value)
        if known is not None:
            before, its_bits, its_limit, scale = known
            same = its_bits == bits and torch.equal(before, weight)
            if same and (its_limit == limit or float(scale.max()) < 0.4 * min(limit, its_limit)):
                return scale
        scale = grid_scales(weight, numerics.WEIGHT_LEVELS[bits])
        if scale is None or bool((scale > limit).any()):
            levels = torch.full_like(weight[0], numerics.WEIGHT_LEVELS[bits])
            scale = row_scales(weight, levels, limit)
        self._known[value] = weight.detach().clone(), bits, limit, scale
        return scale


@dataclass
class Lowering:
    """One pass over a float graph. bits: weight bits by linear layer's result."""

    graph: FloatGraph
    parameters: Parameters
    plan: Plan
    bits: Mapping[Value, int]
    fitted: FittedScales
    result: tg.TokenGraph = field(default_factory=tg.TokenGraph)
    _main: dict[Value, tg.Tensor] = field(default_factory=dict)
    _column: dict[Value, tg.Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def run(self) -> tg.TokenGraph:
        for operation in self.graph.operations:
            self._operation(operation)
        for name, output in self.graph.outputs.items():
            self.result.outputs[name] = self._main[output.value]
        self.result.most_tokens = self.graph.most_tokens
        return self.result

    def _append(self, operation: tg.Operation) -> None:
        self.result.operations.append(operation)

    def _tensor(self, value: Value, scale: float, suffix: str = "") -> tg.Tensor:
        added = self.plan.copies.get(value)
        width = value.width + (0 if added is None else len(added.channels))
        return tg.Tensor(value.name + suffix, width, scale, value.source)

    def _operation(self, operation: fg.Operation) -> None:
        value = operation.output
        main = self._main[value] = self._tensor(value, self.plan.main[value])
        match operation:
            case fg.Embed():
                self._append(tg.Input(main))
            case fg.Linear():
                self._linear(operation, main)
            case fg.LayerNorm() if self._only_columns(value):
                self._column[value] = main
                main.scale = self.plan.column[value]
                self._layer_norm(operation, main, self.plan.smooth[value])
                return
            case fg.LayerNorm():
                self._layer_norm(operation, main, None)
            case fg.Activation(function="relu", input=x):
                self._append(tg.Relu(self._main[x], main))
            case fg.Activation(function=function, input=x):
                self._append(tg.Table(function, self._main[x], main))
            case fg.Add(a=a, b=b):
                self._append(tg.Add(self._main[a], self._main[b], main))
            case fg.Attention():
                self._attention(operation, main)
        self._columns(operation, main)

    def _only_columns(self, value: Value) -> bool:
        """Whether a smoothed value is seen by linear layers alone."""
        return (
            value in self.plan.smooth
            and all(isinstance(user, fg.Linear) for user in fg.users(self.graph, value))
            and all(output.value is not value for output in self.graph.outputs.values())
        )

    def _columns(self, operation: fg.Operation, main: tg.Tensor) -> None:
        """The form for products, where it differs from the main one."""
        value = operation.output
        scale, smooth = self.plan.column.get(value), self.plan.smooth.get(value)
        if scale is None or (scale == main.scale and smooth is None):
            self._column[value] = main
            return
        column = self._column[value] = self._tensor(value, scale, ".columns")
        if smooth is None:
            self._append(tg.Rescale(main, column))
        elif isinstance(operation, fg.LayerNorm):
            self._layer_norm(operation, column, smooth)
        else:
            raise TypeError(f"{type(operation).__name__} cannot divide its channels")

    def _linear(self, operation: fg.Linear, output: tg.Tensor) -> None:
        column = self._column[operation.input]
        weight = operation.weight.of(self.parameters)
        for factors in (self.plan.smooth, self.plan.divided):
            if operation.input in factors:
                weight = weight * factors[operation.input]
        weight, bias = self._with_copies(operation, weight)
        bits = self.bits[operation.output]
        unit = column.scale * UNIT
        scale = self.fitted.fit(operation.output, weight, bits, largest_scale(output.scale) / unit)
        integers = integer_weight(weight, scale, bits)
        rows = make_rows(scale.double() * unit, bias, output.scale).integer()
        self._append(
            tg.Linear(operation.output.name, column, output, make_matrix(integers, bits), rows)
        )

    def _with_copies(self, operation: fg.Linear, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias with the rows and columns of repeated neurons."""
        bias = bias_of(operation, self.parameters, self.plan)
        divided = self.plan.divided.get(operation.output)
        if divided is not None:
            weight, bias = weight / divided[:, None], bias / divided
        columns = self.plan.copies.get(operation.input)
        if columns is not None:
            weight = torch.cat([weight, weight[:, columns.channels]], dim=1)
        rows = self.plan.copies.get(operation.output)
        if rows is not None:
            weight = torch.cat([weight, weight[rows.channels]])
            bias = torch.cat([bias, bias[rows.channels] - rows.shift])
        return weight, bias

    def _layer_norm(
        self, operation: fg.LayerNorm, output: tg.Tensor, smooth: Tensor | None
    ) -> None:
        width, gain = operation.output.width, self.plan.gains[operation.output]
        one = torch.ones(width, dtype=torch.float64)
        weight, bias = (of(r, self.parameters) for r in (operation.weight, operation.bias))
        weight = one if weight is None else weight.double()
        bias = 0 * one if bias is None else bias.double()
        if smooth is not None:
            weight, bias = weight / smooth, bias / smooth
        factor = weight / (output.scale * (1 << gain)) * FACTOR
        offset = bias / output.scale
        for name, tensor in (("factor", factor), ("offset", offset)):
            largest = float(tensor.abs().max())
            if largest > numerics.VALUE_MAX + 1:
                warnings.warn(
                    f"{operation.output.name}: a {name} of {largest:.0f} does not fit 16 bits and "
                    "is clipped",
                    stacklevel=2,
                )
        self._append(
            tg.LayerNorm(self._main[operation.input], output, _int16(factor), _int16(offset), gain)
        )

    def _attention(self, o: fg.Attention, output: tg.Tensor) -> None:
        query, key, value = (self._column[x] for x in (o.query, o.key, o.value))
        real = query.scale * UNIT * key.scale * UNIT * o.scale
        try:
            multiplier, shift = numerics.row_scale(real / tg.SCORE_SCALE)
        except ValueError as error:
            raise CapacityError(f"{o.output.name}: scores are out of range ({error})") from None
        self._append(
            tg.Attention(
                query,
                key,
                value,
                output,
                o.heads,
                o.head_size,
                multiplier,
                shift,
                o.causal,
                self.plan.gains[o.output],
            )
        )


def _int16(values: Tensor) -> np.ndarray:
    rounded = torch.floor(values + 0.5).clamp(numerics.VALUE_MIN, numerics.VALUE_MAX)
    return rounded.numpy().astype(np.int16)
