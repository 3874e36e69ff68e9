"""Reductions of a VECTOR's results: their maximum, sum, and sum of squares."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, VALUE_BITS, Config
from espalier.spec.isa import SCALARS, Sums
from espalier.spec.numerics import COLUMN_SHIFT, MOST_ELEMENTS

from .datapath import data_register
from .vector_value import with_carry

AT_ONCE = 4
"""Lanes that are reduced in a cycle: every adder and comparison is there three times, not V - 1."""
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
"""What one command reduced: `kind` (`isa.Sums`), elements less one, their sum (or maximum·2^12),
and the sum of their squares plus the number of elements."""


def pace(config: Config) -> int:
    """Cycles from one reduced chunk to the next of the same command."""
    return config.vector_lanes // AT_ONCE


class Reducer(wiring.Component):
    """Reduces the chunks of one command after the other, four lanes a cycle.

    A chunk may come `pace` cycles after another one of its command, and `pace` + `GAP` after the
    last one of a command: then the sums are on their way out, and zero. Of two commands one may
    wait in `output` and one in the sums, so at most two may be on their way between their first
    chunk and their leaving `output`.
    Latency: `pace` + 6 cycles from the last chunk to `output.valid`.

    Members
    -------
    valid: a chunk of results comes. values, beyond: it, and which lanes take no part (they are 0).
    last, tail: it is its command's last; number of elements in it less one.
    kind, target: the reduction, and its scalar with the gain (`isa.reduction_address`).
    output: one word a command.
    """

    STAGES = 4
    GAP = STAGES + 2

    def __init__(self, config: Config):
        self._pace, lanes = pace(config), config.vector_lanes
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
        kind, target, tail = (
            data_register(len(port), name)
            for port, name in ((self.kind, "kind"), (self.target, "target"), (self.tail, "tail"))
        )
        with m.If(self.valid):
            m.d.sync += [kind.eq(self.kind), target.eq(self.target), tail.eq(self.tail)]
        valid, final, values, counts = self._groups(m)

        strobes, ends = Signal(self.STAGES), Signal(self.STAGES)
        m.d.sync += [strobes.eq(Cat(valid, strobes)), ends.eq(Cat(final, ends))]
        pushes, complete = Signal(), Signal()
        total = self._total(m, values, kind == Sums.MASS, strobes[-1], pushes)
        squares = self._squares(m, values, counts, strobes[-1], pushes)
        maximum = self._maximum(m, values, counts, strobes[-1], pushes)
        chunks = Signal(COUNT_BITS - len(tail), init=-1)
        with m.If(self.valid):
            m.d.sync += chunks.eq(chunks + 1)

        output = data_register(REDUCTION_LAYOUT, "reduction")
        m.d.comb += [
            pushes.eq(complete & (~self.output.valid | self.output.ready)),
            Value.cast(self.output.payload).eq(output),
        ]
        m.d.sync += complete.eq((complete & ~pushes) | ends[-1])
        with m.If(self.output.ready | pushes):
            m.d.sync += self.output.valid.eq(pushes)
        with m.If(pushes):
            m.d.sync += [
                chunks.eq(-1),
                output.kind.eq(kind),
                output.scalar.eq(target[:SCALAR_INDEX_BITS]),
                output.gain.eq(target[SCALAR_INDEX_BITS:]),
                output.most.eq(Cat(tail, chunks)),
                output.total.eq(total),
                output.squares.eq(squares),
            ]
            with m.If(kind == Sums.MAXIMUM):
                m.d.sync += output.total.eq(maximum << COUNT_BITS)
        return m

    def _groups(self, m: Module) -> tuple[Value, Value, list[Value], list[Value]]:
        """Four lanes of the chunk a cycle, from registers: (valid a cycle before, and that they are
        a command's last), values, and which count."""
        held = data_register(self.values.as_value().shape(), "held")
        held_counts = data_register(len(self.beyond), "held_counts")
        index, active, last = Signal(range(max(self._pace, 2))), Signal(), Signal()
        ends = index == self._pace - 1
        with m.If(self.valid):
            m.d.sync += [held.eq(self.values), held_counts.eq(~self.beyond), last.eq(self.last)]
            m.d.sync += [active.eq(1), index.eq(0)]
        with m.Elif(active):
            m.d.sync += [active.eq(~ends), index.eq(index + 1)]
        values = data_register(AT_ONCE * VALUE_BITS, "group")
        counts = data_register(AT_ONCE, "group_counts")
        m.d.sync += [
            values.eq(held.word_select(index, len(values))),
            counts.eq(held_counts.word_select(index, AT_ONCE)),
        ]
        parts = [values.word_select(i, VALUE_BITS).as_signed() for i in range(AT_ONCE)]
        return active, active & ends & last, parts, list(counts)

    def _total(
        self, m: Module, values: list[Value], mass: Value, adds: Value, clears: Value
    ) -> Value:
        """Sum of results or, for a mass, of column inputs: upper byte + increment, which enters as
        a carry."""
        parts, carries = [], []
        for i, value in enumerate(values):
            part, carry = (
                data_register(signed(VALUE_BITS), f"part_{i}"),
                data_register(1, f"up_{i}"),
            )
            upper = value[COLUMN_SHIFT:].as_signed()
            highest = upper == (1 << (COLUMN_BITS - 1)) - 1
            lowest = upper == -(1 << (COLUMN_BITS - 1))
            rounds = (value[COLUMN_SHIFT - 1] & ~highest) | lowest
            m.d.sync += [part.eq(Mux(mass, upper, value)), carry.eq(mass & rounds)]
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
        """The sum of all groups' parts and carries: two stages of adders, then the sum."""
        width = len(parts[0])

        def summed(a: Value, b: Value, carry: Value, label: str) -> Value:
            result = data_register(Shape(len(a) + 1, shape.signed), f"{name}_{label}")
            m.d.sync += result.eq(with_carry(a, b, carry))
            return result

        pairs = [summed(parts[i], parts[i + 1], carries[i], f"pair_{i}") for i in (0, 2)]
        late = [data_register(2, f"{name}_late_{i}") for i in (0, 1)]
        m.d.sync += [late[0].eq(Cat(carries[1], carries[3])), late[1].eq(late[0])]
        group = summed(pairs[0], pairs[1], late[0][0], "group")
        assert len(group) == width + 2
        accumulator = Signal(shape, name=name)
        with m.If(adds):
            m.d.sync += accumulator.eq(with_carry(accumulator, group, late[1][1]))
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

        flipped = [
            Cat(value[:-1], ~value[-1] & count) for value, count in zip(values, counts, strict=True)
        ]
        pairs = [larger(flipped[i], flipped[i + 1], f"pair_{i}") for i in (0, 2)]
        both, group = larger(*pairs, "group"), data_register(VALUE_BITS, "larger_late")
        m.d.sync += group.eq(both)
        maximum = Signal(VALUE_BITS)
        with m.If(adds & (group > maximum)):
            m.d.sync += maximum.eq(group)
        with m.If(clears):
            m.d.sync += maximum.eq(0)
        return Cat(maximum[:-1], ~maximum[-1]).as_signed()
