"""Scales of all values, from their ranges: what the integer graph is built with.

A value may exist in two forms. Its `main` one has the scale of the residual stream that it belongs
to, or one that its range needs; its `column` one, for products, may be finer, clip outliers, and
have its channels divided by factors that the products' weights take over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..spec import numerics
from . import float_graph as fg
from .calibrate import Range, Statistics
from .float_graph import FloatGraph, Value

COLUMN_ENDS = {level: (level << numerics.COLUMN_SHIFT) + 127 for level in (127, 119)}
"""The largest element that rounds to a column of 127, or of 119."""
MARGIN = 1.25
"""Room in 16-bit scales beyond what the samples reached; columns have none."""
SHARED = 1.08
"""A stream's scale that is coarser than a column's by less serves both."""
TABLE_REACH = 6.0
"""GELU is 0 or x beyond."""


@dataclass
class Plan:
    """main, column: element scales by value; smooth: factors [width] of columns.

    gains: of LayerNorms and attentions, by their result.
    """

    main: dict[Value, float] = field(default_factory=dict)
    column: dict[Value, float] = field(default_factory=dict)
    smooth: dict[Value, Tensor] = field(default_factory=dict)
    gains: dict[Value, int] = field(default_factory=dict)


@dataclass
class Planner:
    """Chooses a Plan; `percentile` of columns: the share of elements that are not clipped, or
    "mse" for the least squared error."""

    graph: FloatGraph
    statistics: Statistics
    activation_range: str | float = "mse"
    plan: Plan = field(default_factory=Plan)

    def run(self) -> Plan:
        streams = self._streams()
        for operation in self.graph.operations:
            value = operation.output
            self._column(value)
            if value in streams:
                self.plan.main[value] = streams[value]
                self._share(value)
            else:
                self._main(operation)
        self._fixed()
        return self.plan

    def _range(self, value: Value) -> Range:
        return self.statistics.ranges[value]

    def _streams(self) -> dict[Value, float]:
        """The common scale of values that are added to each other."""
        group: dict[Value, set[Value]] = {}
        for operation in self.graph.operations:
            if isinstance(operation, fg.Add):
                values = {operation.a, operation.b, operation.output}
                joined = set().union(values, *(group.get(v, set()) for v in values))
                group |= dict.fromkeys(joined, joined)
        return {
            value: max(self._range(each).largest for each in members) * MARGIN / numerics.VALUE_MAX
            or 1.0
            for value, members in group.items()
        }

    def _column(self, value: Value) -> None:
        """The scale that products want, if there are any."""
        users = fg.users(self.graph, value)
        end = 0
        for user in users:
            if isinstance(user, fg.Attention) and value in (user.key, user.value):
                end = COLUMN_ENDS[119]
            elif isinstance(user, fg.Linear | fg.Attention):
                end = end or COLUMN_ENDS[127]
        if end:
            self.plan.column[value] = self._column_range(value) / end or 1.0

    def _column_range(self, value: Value) -> float:
        found = self._range(value)
        pool = found.pool
        factors = self.plan.smooth.get(value)
        if factors is not None:
            return float((found.channels / factors).max())
        if self.activation_range == "max":
            return found.largest
        if self.activation_range == "mse":
            return least_error(pool, found.largest)
        return float(torch.quantile(pool.abs(), float(self.activation_range) / 100))

    def _share(self, value: Value) -> None:
        column = self.plan.column.get(value)
        if column is not None and value not in self.plan.smooth:
            main = self.plan.main[value]
            if column <= main <= column * SHARED:
                self.plan.column[value] = main

    def _main(self, operation: fg.Operation) -> None:
        """A scale for what is in no stream: the column's, or that of its only other use."""
        value, plan = operation.output, self.plan
        users = fg.users(self.graph, value)
        found = self._range(value)
        scale = found.largest * MARGIN / numerics.VALUE_MAX or 1.0
        activations = [u.function for u in users if isinstance(u, fg.Activation)]
        if activations:
            function = activations[0]
            reach = max(found.high, min(-found.low, TABLE_REACH)) * MARGIN
            scale = reach / numerics.VALUE_MAX or 1.0
            if function == "relu":
                scale = found.high * MARGIN / numerics.VALUE_MAX or 1.0
            elif function in numerics.FUNCTIONS:
                scale = numerics.FUNCTIONS[function][1]
        is_output = any(o.value is value for o in self.graph.outputs.values())
        if value in plan.column and not activations and not is_output:
            scale = plan.column[value]
        plan.main[value] = scale
        if value in plan.column and is_output:
            self._share(value)

    def _fixed(self) -> None:
        """Scales that an operation prescribes: of tables, relu, attention; gains."""
        plan = self.plan
        for operation in self.graph.operations:
            value = operation.output
            match operation:
                case fg.Activation(function=function) if function in numerics.FUNCTIONS:
                    plan.main[value] = numerics.FUNCTIONS[function][2]
                case fg.Activation(function="relu", input=x):
                    plan.main[x] = plan.main[value]
                case fg.Attention():
                    self._attention(operation)
                case fg.LayerNorm():
                    deviation = self.statistics.deviations[value] * MARGIN
                    gain = math.floor(math.log2(numerics.VALUE_MAX / max(deviation, 1.0)))
                    plan.gains[value] = gain

    def _attention(self, operation: fg.Attention) -> None:
        """The result's scale is the values' by a power of two."""
        plan, value = self.plan, operation.output
        wanted = plan.column.get(value, plan.main[value])
        gain = max(0, math.floor(math.log2(plan.column[operation.value] / wanted)))
        plan.gains[value] = gain
        plan.main[value] = plan.column[operation.value] / (1 << gain)
        plan.column[value] = plan.main[value]


def least_error(pool: Tensor, largest: float, steps: int = 50) -> float:
    """The range of the least squared error of 8-bit columns, of rounding and of clipping.

    Source: Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, arXiv
    1902.06822, section 3.
    """
    best, least = largest, math.inf
    for step in range(steps, steps // 10, -1):
        scale = largest * step / steps / numerics.COLUMN_MAX
        if scale == 0:
            return largest
        rounded = torch.floor(pool / scale + 0.5).clamp(numerics.COLUMN_MIN, numerics.COLUMN_MAX)
        error = float((rounded * scale - pool).square().sum())
        if error < least:
            best, least = largest * step / steps, error
    return best
