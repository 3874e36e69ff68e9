"""Scales of all values, from their ranges: what the integer graph is built with.

What is chosen is a `choices.Plan`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..spec import numerics
from . import float_graph as fg
from .calibrate import Range, Statistics
from .choices import Options, Plan, bias_of
from .compute import Parameters, of
from .even import even
from .float_graph import FloatGraph, Value
from .functions import FUNCTIONS
from .outliers import TABLE_REACH, copies, least_error, smoothing

COLUMN_ENDS = {level: (level << numerics.COLUMN_SHIFT) + 127 for level in (127, 119)}
"""The largest element that rounds to a column of 127, or of 119."""
MARGIN = 1.25
"""Room in 16-bit scales beyond what the samples reached; columns have none."""
SHARED = 1.08
"""A stream's scale that is coarser than a column's by less serves both."""
STRAIGHT = ("gelu", "gelu_tanh", "relu")
"""Activations that are x for large x."""
NOTICEABLE = 0.005
"""Effect of another eps that is worth a warning: half a step of 8 bits."""
CLIPPED = 0.05
"""Change of an attention weight by clipped scores that is."""
FREE_GAIN, PAID_GAIN = 1.0, 0.6
"""Smoothing must bring the error below this share; it is paid where it takes an operation."""


@dataclass
class Planner:
    """Chooses a Plan.

    parameters, bits: weights and their bits, by linear layer's result.
    options: see `Options`.
    """

    graph: FloatGraph
    statistics: Statistics
    parameters: Parameters
    bits: Mapping[Value, int]
    options: Options
    plan: Plan = field(default_factory=Plan)

    def run(self) -> Plan:
        streams = self._streams()
        for operation in self.graph.operations:
            if self.options.smooth and isinstance(operation, fg.LayerNorm):
                self._smooth(operation.output)
            if self.options.copies and isinstance(operation, fg.Activation):
                self._copies(operation)
            if self.options.even and isinstance(operation, fg.Attention):
                self._even(operation)
        for operation in self.graph.operations:
            value = operation.output
            self._column(operation)
            if value in streams:
                self.plan.main[value] = streams[value]
                self._share(value)
            else:
                self._main(operation)
        self._fixed()
        self._warn()
        return self.plan

    def _warn(self) -> None:
        """Say where the machine's LayerNorm and scores differ from the model's noticeably."""
        for operation in self.graph.operations:
            name, value = operation.output.name, operation.output
            if isinstance(operation, fg.LayerNorm):
                effect = self.epsilon_effect(operation)
                if effect > NOTICEABLE:
                    warnings.warn(
                        f"{name}: eps={operation.eps:g} becomes "
                        f"{self.plan.main[operation.input] ** 2:.2g} on the accelerator, which "
                        f"changes results by up to {effect:.1%} on the calibration samples",
                        stacklevel=4,
                    )
            change = self.statistics.clipping.get(value, 0.0)
            if change > CLIPPED:
                warnings.warn(
                    f"{name}: scores beyond ±32 are clipped, which changes attention weights by "
                    f"up to {change:.2f} on the calibration samples",
                    stacklevel=4,
                )

    def epsilon_effect(self, operation: fg.LayerNorm) -> float:
        """By which share a LayerNorm's results change at most, because the machine adds one unit of
        its input, squared, to the variance instead of eps."""
        variance = self.statistics.variances[operation.output]
        unit = self.plan.main[operation.input]
        return abs(math.sqrt((variance + operation.eps) / (variance + unit**2)) - 1)

    def _range(self, value: Value) -> Range:
        """Of a LayerNorm, of what must not saturate: its result with and without its offset."""
        found, maker = self.statistics.ranges[value], self._makers[value]
        if isinstance(maker, fg.LayerNorm) and maker.bias is not None:
            return found.before(of(maker.bias, self.parameters).detach())
        return found

    @cached_property
    def _makers(self) -> dict[Value, fg.Operation]:
        return {operation.output: operation for operation in self.graph.operations}

    def _streams(self) -> dict[Value, float]:
        """The common scale of values that are added to each other."""
        group: dict[Value, set[Value]] = {}
        for operation in self.graph.operations:
            if isinstance(operation, fg.Add):
                values = {operation.a, operation.b, operation.output}
                joined = set().union(values, *(group.get(v, set()) for v in values))
                group |= dict.fromkeys(joined, joined)
        return {
            value: max(
                max(self._range(each).largest * MARGIN / numerics.VALUE_MAX for each in members),
                max(self._least(self._makers[each]) for each in members),
            )
            or 1.0
            for value, members in group.items()
        }

    def _least(self, operation: fg.Operation) -> float:
        """The smallest scale with which an operation's parameters fit their bits."""
        if not isinstance(operation, fg.Linear | fg.LayerNorm):
            return 0.0
        bias = of(operation.bias, self.parameters)
        bias = torch.zeros(1) if bias is None else bias.detach()
        if isinstance(operation, fg.Linear):
            bias = bias_of(operation, self.parameters, self.plan).detach()
            bias = bias / self.plan.divided.get(operation.output, 1)
        largest = float(bias.abs().max())
        added = self.plan.copies.get(operation.output)
        if added is not None:
            largest = max(largest, float((bias[added.channels] - added.shift).abs().max()))
        least = largest / numerics.VALUE_MAX
        if isinstance(operation, fg.LayerNorm):
            least = max(least, float(self._factors(operation).max()))
        return least

    def _factors(self, operation: fg.LayerNorm) -> Tensor:
        """The scales [width] with which its factors are the largest that Q3.12 has."""
        weight = of(operation.weight, self.parameters)
        weight = torch.ones(operation.output.width) if weight is None else weight.detach()
        gain = self._gain(operation.output)
        return weight.abs() * (1 << numerics.FACTOR_BITS) / (numerics.VALUE_MAX << gain)

    def _gain(self, value: Value) -> int:
        """Of all LayerNorms of this width, so that equal layers share their code: as many units per
        deviation as no element saturates with."""
        norms = [o.output for o in self.graph.operations if isinstance(o, fg.LayerNorm)]
        return min(self._own_gain(norm) for norm in norms if norm.width == value.width)

    def _own_gain(self, value: Value) -> int:
        deviation = min(self.statistics.deviations[value] * MARGIN, math.sqrt(value.width))
        return math.floor(math.log2(numerics.VALUE_MAX / max(deviation, 1.0)))

    def _smooth(self, value: Value) -> None:
        users = fg.users(self.graph, value)
        linears = [user for user in users if isinstance(user, fg.Linear)]
        if not linears or any(isinstance(user, fg.Attention) for user in users):
            return
        weight = self._weight(linears)
        level = numerics.WEIGHT_LEVELS[min(self.bits[user.output] for user in linears)]
        free = len(linears) == len(users) and not self._is_output(value)
        factors = smoothing(self._range(value), weight, level, FREE_GAIN if free else PAID_GAIN)
        if factors is not None:
            self.plan.smooth[value] = factors

    def _copies(self, operation: fg.Activation) -> None:
        """Copies, where nothing but linear layers sees the activation and its input."""
        before, after = operation.input, operation.output
        made = [o for o in self.graph.linears if o.output is before]
        alone = len(fg.users(self.graph, before)) == 1 and not self._is_output(before)
        users = fg.users(self.graph, after)
        seen = all(isinstance(user, fg.Linear) for user in users) and not self._is_output(after)
        if made and users and alone and seen and operation.function in STRAIGHT:
            found = copies(
                self._range(before),
                self._range(after),
                FUNCTIONS[operation.function],
                self._loudness(after),
                self.options.copies,
            )
            if found is not None:
                self.plan.copies |= {before: found, after: found}

    def _weight(self, users: Sequence[fg.Linear]) -> Tensor:
        """Of linear layers with one input [outputs of all, inputs]."""
        return torch.cat([user.weight.of(self.parameters) for user in users]).detach()

    def _loudness(self, value: Value) -> Tensor:
        """Squared norms of the columns [width] of all linear layers that take a value."""
        users = [u for u in fg.users(self.graph, value) if isinstance(u, fg.Linear)]
        return self._weight(users).square().sum(0)

    def _even(self, operation: fg.Attention) -> None:
        """Factors of values and context, where nothing but the linear layers beside them sees
        them."""
        value, context = operation.value, operation.output
        made = any(linear.output is value for linear in self.graph.linears)
        alone = len(fg.users(self.graph, value)) == 1 and value is not operation.key
        after = fg.users(self.graph, context)
        seen = all(isinstance(user, fg.Linear) for user in after)
        outputs = self._is_output(value) or self._is_output(context)
        if made and alone and after and seen and not outputs:
            level = numerics.WEIGHT_LEVELS[min(self.bits[user.output] for user in after)]
            factors = even(self._range(value), self._range(context), self._weight(after), level)
            if factors is not None:
                self.plan.divided |= {value: factors, context: factors}

    def _largest(self, value: Value) -> float:
        """Of a value as it exists."""
        divided = self.plan.divided.get(value)
        found = self._range(value)
        return found.largest if divided is None else float((found.channels / divided).max())

    def _is_output(self, value: Value) -> bool:
        return any(output.value is value for output in self.graph.outputs.values())

    def _column(self, operation: fg.Operation) -> None:
        """The scale that products want, if there are any."""
        value, least = operation.output, self._least(operation)
        users = fg.users(self.graph, value)
        ends = [
            COLUMN_ENDS[119 if value in (user.key, user.value) else 127]
            for user in users
            if isinstance(user, fg.Attention)
        ]
        if ends:
            scale = self._largest(value) / min(ends)
        elif any(isinstance(user, fg.Linear) for user in users):
            scale = self._column_range(value) / COLUMN_ENDS[127]
        else:
            return
        self.plan.column[value] = scale if value in self.plan.smooth else max(scale, least)
        self.plan.column[value] = self.plan.column[value] or 1.0
        if value in self.plan.smooth:
            smooth, factors = self.plan.smooth[value], self._factors(operation)
            self.plan.smooth[value] = torch.maximum(smooth, factors / self.plan.column[value])

    def _column_range(self, value: Value) -> float:
        found, wanted = self._range(value), self.options.activation_range
        if value in self.plan.copies:
            return self.plan.copies[value].limit
        if value in self.plan.smooth:
            return float((found.channels / self.plan.smooth[value]).max())
        if wanted == "max" or value in self.plan.divided:
            return self._largest(value)
        if wanted == "mse":
            return least_error(found.rows, found.largest, self._loudness(value))
        return float(torch.quantile(found.pool.abs(), float(wanted) / 100))

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
        scale = found.largest * MARGIN / numerics.VALUE_MAX
        activations = [u.function for u in users if isinstance(u, fg.Activation)]
        if activations:
            scale = self._table_reach(value, activations[0]) / numerics.VALUE_MAX
            if activations[0] in numerics.FUNCTIONS:
                scale = numerics.FUNCTIONS[activations[0]][1]
        is_output = self._is_output(value)
        if value in plan.column and not activations and not is_output:
            scale = plan.column[value]
        plan.main[value] = max(scale, self._least(operation)) or 1.0
        if value in plan.column and is_output:
            self._share(value)

    def _table_reach(self, value: Value, function: str) -> float:
        """How far an activation's input must reach: beyond its ends it may saturate."""
        found = self._range(value)
        if value in self.plan.copies:
            return self.plan.copies[value].reach
        return found.high if function == "relu" else max(found.high, min(-found.low, TABLE_REACH))

    def _fixed(self) -> None:
        """Scales that an operation prescribes: of tables, relu, attention; gains."""
        plan = self.plan
        attentions = [o for o in self.graph.operations if isinstance(o, fg.Attention)]
        gain = min((self._attention_gain(o) for o in attentions), default=0)
        for operation in self.graph.operations:
            value = operation.output
            match operation:
                case fg.Activation(function=function) if function in numerics.FUNCTIONS:
                    plan.main[value] = numerics.FUNCTIONS[function][2]
                case fg.Activation(function="relu", input=x):
                    self._relu(x, value)
                case fg.Attention():
                    self._attention(operation, gain)
                case fg.LayerNorm():
                    plan.gains[value] = self._gain(value)

    def _relu(self, before: Value, after: Value) -> None:
        """One scale before and after; the input's biases must fit, too."""
        plan = self.plan
        scale = max(plan.main[after], plan.main[before] if self._shared(before) else 0.0)
        made = next(o for o in self.graph.operations if o.output is before)
        scale = max(scale, self._least(made))
        if plan.column.get(after) == plan.main[after]:
            plan.column[after] = scale
        plan.main[before] = plan.main[after] = scale

    def _shared(self, value: Value) -> bool:
        """Whether a value is used in more than one way."""
        return len(fg.users(self.graph, value)) > 1 or self._is_output(value)

    def _attention_gain(self, operation: fg.Attention) -> int:
        value = operation.output
        wanted = self.plan.column.get(value, self.plan.main[value])
        return max(0, math.floor(math.log2(self.plan.column[operation.value] / wanted)))

    def _attention(self, operation: fg.Attention, gain: int) -> None:
        """The result's scale is the values' by a power of two, the same in all attentions: equal
        layers share their code."""
        plan, value = self.plan, operation.output
        plan.gains[value] = gain
        plan.main[value] = plan.column[operation.value] / (1 << gain)
        plan.column[value] = plan.main[value]
