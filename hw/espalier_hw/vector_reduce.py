"""Reductions of a VECTOR's results: their maximum, sum, and sum of squares."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, SCALARS, VALUE_BITS, Config
from espalier.spec.isa import Sums
from espalier.spec.numerics import COLUMN_SHIFT, MOST_ELEMENTS

from .datapath import data_register
from .vector_sum import with_carry

AT_ONCE = 8
"""Most lanes that are reduced in a cycle: every adder and comparison is there seven times, not
V - 1."""
COUNT_BITS = (MOST_ELEMENTS - 1).bit_length()
TOTAL_BITS = VALUE_BITS + COUNT_BITS
"""Width of a sum of results, signed."""
SQUARES_BITS = 2 * VALUE_BITS - 1 + COUNT_BITS
"""Width of a sum of x² + 1: at most (2^30 + 1)·2^12."""
SUMS_BITS = max(Sums).bit_length()
SCALAR_INDEX_BITS = (SCALARS - 1).bit_length()
REDUCTION_LAYOUT = data.StructLayout(
    {
        "kind": SUMS_BITS,
        "scalar": SCALAR_INDEX_BITS,
        "gain": 4,
        "most": COUNT_BITS,
        "total": signed(TOTAL_BITS),
        "squares": SQUARES_BITS,
    }
)
"""What one command reduced: `kind` (`isa.Sums`), elements less one, their sum (or mass·2^8, or
maximum·2^12), and the sum of their squares plus the number of elements."""


def pace(config: Config) -> int:
    """Cycles from one reduced chunk to the next of the same command."""
    return max(config.vector_lanes // AT_ONCE, 1)


class Reducer(wiring.Component):
    """Reduces the chunks of one command after the other, at most eight lanes a cycle.

    A chunk may come `pace` cycles after another one of its command, and `pace` + `GAP` after the
    last one of a command: in between its sums leave and become zero. Of two commands one may wait
    in `output` and one in the sums, so at most two may be on their way between their first chunk
    and their leaving `output`.
    Latency: `pace` + 6 cycles from the last chunk to `output.valid`, 5 where V is 4.

    Members
    -------
    valid: a chunk of results comes. values, beyond: it, and which lanes take no part (they are 0).
    last, tail: it is its command's last; number of elements in it less one.
    kind, target: the reduction, and its scalar with the gain (`isa.reduction_address`).
    output: one word a command.
    """

    GAP = 1

    def __init__(self, config: Config):
        self._pace, lanes = pace(config), config.vector_lanes
        self._lanes = min(lanes, AT_ONCE)
        self._levels = (self._lanes - 1).bit_length()
        super().__init__(
            {
                "valid": In(1),
                "values": In(data.ArrayLayout(signed(VALUE_BITS), lanes)),
                "beyond": In(lanes),
                "last": In(1),
                "tail": In((lanes - 1).bit_length()),
                "kind": In(SUMS_BITS),
                "target": In(10),
                "output": Out(stream.Signature(REDUCTION_LAYOUT)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values, counts, mass, valid = self._groups(m)
        tree = self._levels + 1
        adds = Signal(tree)
        m.d.sync += adds.eq(Cat(valid, adds))
        about, ends = self._about(m, self._pace + tree)
        complete, pushes = Signal(), Signal()
        total = self._total(m, values, mass, adds[-1], pushes)
        squares = self._squares(m, values, counts, adds[-1], pushes)
        maximum = self._maximum(m, values, counts, adds[-1], pushes)

        held = data_register(about.shape(), "about_held")
        output = data_register(REDUCTION_LAYOUT, "reduction")
        m.d.comb += [
            pushes.eq(complete & (~self.output.valid | self.output.ready)),
            Value.cast(self.output.payload).eq(output),
        ]
        m.d.sync += complete.eq((complete & ~pushes) | ends)
        with m.If(ends):
            m.d.sync += held.eq(about)
        with m.If(self.output.ready | pushes):
            m.d.sync += self.output.valid.eq(pushes)
        with m.If(pushes):
            m.d.sync += [
                output.kind.eq(held.kind),
                output.scalar.eq(held.target[:SCALAR_INDEX_BITS]),
                output.gain.eq(held.target[SCALAR_INDEX_BITS:]),
                output.most.eq(held.most),
                output.total.eq(total),
                output.squares.eq(squares),
            ]
            with m.If(held.kind == Sums.MAXIMUM):
                m.d.sync += output.total.eq(maximum << COUNT_BITS)
        return m

    def _about(self, m: Module, cycles: int) -> tuple[data.View, Value]:
        """What a command's last chunk tells, with a pulse, `cycles` later."""
        layout = data.StructLayout({"kind": SUMS_BITS, "target": 10, "most": COUNT_BITS})
        before = Signal(COUNT_BITS - len(self.tail), name="chunks_before")
        with m.If(self.valid):
            m.d.sync += before.eq(Mux(self.last, 0, before + 1))
        ends = Signal(cycles)
        m.d.sync += ends.eq(Cat(self.valid & self.last, ends))
        about = Signal(layout)
        m.d.comb += [
            about.kind.eq(self.kind),
            about.target.eq(self.target),
            about.most.eq(Cat(self.tail, before)),
        ]
        for cycle in range(cycles):
            later = data_register(layout, f"about_{cycle}")
            m.d.sync += later.eq(about)
            about = later
        return about, ends[-1]

    def _groups(self, m: Module) -> tuple[list[Value], list[Value], Value, Value]:
        """Eight lanes of the chunk a cycle, from registers: values, which count, whether it is for
        a mass, and that they are there."""
        bits = VALUE_BITS + 1
        lanes = [
            Cat(value, ~beyond) for value, beyond in zip(self.values, self.beyond, strict=True)
        ]
        group = data_register(self._lanes * bits, "group")
        rest = data_register((len(lanes) - self._lanes) * bits, "rest")
        first, later = Cat(*lanes[: self._lanes]), Cat(*lanes[self._lanes :])
        left, mass = Signal(range(max(self._pace, 2))), data_register(1, "mass")
        valid = Signal(name="group_valid")
        m.d.sync += [valid.eq(self.valid | (left != 0)), group.eq(rest)]
        with m.If(self.valid):
            m.d.sync += [group.eq(first), rest.eq(later), mass.eq(self.kind == Sums.MASS)]
            m.d.sync += left.eq(self._pace - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
            if self._pace > 2:
                m.d.sync += rest.eq(rest >> len(group))
        parts = [group.word_select(i, bits) for i in range(self._lanes)]
        return [p[:-1].as_signed() for p in parts], [p[-1] for p in parts], mass, valid

    def _total(
        self, m: Module, values: list[Value], mass: Value, adds: Value, clears: Value
    ) -> Value:
        """Sum of results or, for a mass, of column inputs·2^8: the upper byte, and 255 with a carry
        below it where that is rounded up."""
        parts, carries = [], []
        for i, value in enumerate(values):
            part = data_register(signed(VALUE_BITS), f"part_{i}")
            carry = data_register(1, f"up_{i}")
            upper = value[COLUMN_SHIFT:].as_signed()
            highest = upper == (1 << (COLUMN_BITS - 1)) - 1
            lowest = upper == -(1 << (COLUMN_BITS - 1))
            rounds = (value[COLUMN_SHIFT - 1] & ~highest) | lowest
            low = Mux(mass, rounds.replicate(COLUMN_SHIFT), value[:COLUMN_SHIFT])
            m.d.sync += [part.eq(Cat(low, upper)), carry.eq(mass & rounds)]
            parts.append(part)
            carries.append(carry)
        return self._summed(m, "total", signed(TOTAL_BITS), parts, carries, adds, clears)

    def _squares(
        self, m: Module, values: list[Value], counts: list[Value], adds: Value, clears: Value
    ) -> Value:
        """Sum of x² + 1 over the elements that count; the 1 enters as a carry."""
        parts, carries = [], []
        for i, (value, count) in enumerate(zip(values, counts, strict=True)):
            part = data_register(2 * VALUE_BITS - 1, f"square_{i}")
            carry = data_register(1, f"one_{i}")
            m.d.sync += [part.eq(value * value), carry.eq(count)]
            parts.append(part)
            carries.append(carry)
        return self._summed(m, "squares", unsigned(SQUARES_BITS), parts, carries, adds, clears)

    @staticmethod
    def _summed(
        m: Module,
        name: str,
        shape: Shape,
        parts: list[Value],
        carries: list[Value],
        adds: Value,
        clears: Value,
    ) -> Value:
        """The sum of all groups' parts and carries: a stage of adders for each halving of their
        number, then the sum. Every adder takes one carry, and half of them are left for later."""
        level = 0
        while len(parts) > 1:
            halved, late = [], []
            for i in range(0, len(parts), 2):
                result = data_register(
                    Shape(len(parts[i]) + 1, shape.signed), f"{name}_{level}_{i // 2}"
                )
                m.d.sync += result.eq(with_carry(parts[i], parts[i + 1], carries[i // 2]))
                halved.append(result)
            for i, carry in enumerate(carries[len(halved) :]):
                later = data_register(1, f"{name}_{level}_late_{i}")
                m.d.sync += later.eq(carry)
                late.append(later)
            parts, carries, level = halved, late, level + 1
        accumulator = Signal(shape, name=name)
        with m.If(adds):
            m.d.sync += accumulator.eq(with_carry(accumulator, parts[0], carries[0]))
        with m.If(clears):
            m.d.sync += accumulator.eq(0)
        return accumulator

    @staticmethod
    def _maximum(
        m: Module, values: list[Value], counts: list[Value], adds: Value, clears: Value
    ) -> Value:
        """The largest element, compared with its sign bit flipped: 0 is the smallest then, and what
        does not count is 0 but for that bit."""

        def larger(a: Value, b: Value, label: str) -> Value:
            result = data_register(VALUE_BITS, f"larger_{label}")
            m.d.sync += result.eq(Mux(a > b, a, b))
            return result

        level = [
            Cat(value[:-1], ~value[-1] & count) for value, count in zip(values, counts, strict=True)
        ]
        while len(level) > 1:
            level = [
                larger(level[i], level[i + 1], f"{len(level)}_{i // 2}")
                for i in range(0, len(level), 2)
            ]
        maximum, group = Signal(VALUE_BITS), data_register(VALUE_BITS, "larger_late")
        m.d.sync += group.eq(level[0])
        with m.If(adds & (group > maximum)):
            m.d.sync += maximum.eq(group)
        with m.If(clears):
            m.d.sync += maximum.eq(0)
        return Cat(maximum[:-1], ~maximum[-1]).as_signed()
