"""Arithmetic on 16-bit values: the second half of a vector lane.

Every stage is one multiply, one two-operand add or one selection. A product that a command does not
want is made harmless by a constant factor, so that no result needs a selection behind its adder.
"""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, VALUE_BITS
from espalier.spec.isa import Combine as CombineChoice
from espalier.spec.isa import Finish as FinishChoice
from espalier.spec.memory import TABLE_ENTRY
from espalier.spec.numerics import COLUMN_SHIFT, FACTOR_BITS, GATE_BITS, TABLE_FRACTION_BITS

from .chip import is_ecp5
from .datapath import data_output, data_register
from .interfaces import struct
from .vector_sum import saturated, with_carry

ENTRY_LAYOUT = struct(TABLE_ENTRY)
SEGMENT_BITS = VALUE_BITS - TABLE_FRACTION_BITS
ONE = 1 << GATE_BITS
"""1.0 in Q0.15: does not fit 16 bits, but a factor of the multiplier has more."""
FACTOR_SHIFT = GATE_BITS - FACTOR_BITS
"""A factor in Q3.12 counts in Q0.15 after this shift, and rounds the same."""


class Combine(wiring.Component):
    """result = value, sat16(value + operand), or sat16 of `numerics.multiply_values` or
    `numerics.amplify` of both.

    Computed as (value·factor + 2^14) >> 15 + addend, with factor 1.0 unless multiplying (operand)
    or amplifying (8·operand), and addend 0 unless adding. Latency 3 cycles from `value`; `operand`
    and `combine` come one cycle before it. An ECP5 has no multiplier for 19 bits: there the product
    is shifted instead of the factor.
    """

    LATENCY = 3

    value: In(signed(VALUE_BITS))
    operand: In(signed(VALUE_BITS))
    combine: In(2)
    result: Out(signed(VALUE_BITS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        early = 0 if is_ecp5(platform) else FACTOR_SHIFT
        factor = data_register(signed(VALUE_BITS + max(early, 1)), "factor")
        addends = [data_register(signed(VALUE_BITS), f"addend_{stage}") for stage in (0, 1)]
        product = data_register(signed(VALUE_BITS + len(factor)), "product")
        total = data_register(signed(VALUE_BITS + FACTOR_SHIFT + 1), "total")

        # Stage 0: registers of the DSP block (the value's is the stage before us).
        m.d.sync += addends[0].eq(self.operand)
        with m.Switch(self.combine):
            with m.Case(CombineChoice.MULTIPLY):
                m.d.sync += factor.eq(self.operand)
            with m.Case(CombineChoice.AMPLIFY):
                m.d.sync += factor.eq(self.operand << early)
            with m.Default():
                m.d.sync += factor.eq(ONE)
        with m.If(self.combine != CombineChoice.ADD):
            m.d.sync += addends[0].eq(0)
        # Stages 1 to 3
        m.d.sync += [product.eq(self.value * factor), addends[1].eq(addends[0])]
        scaled = product
        if not early:
            amplifies = data_register(2, "amplifies")
            m.d.sync += amplifies.eq(Cat(self.combine == CombineChoice.AMPLIFY, amplifies))
            scaled = Mux(amplifies[1], product << FACTOR_SHIFT, product)
        m.d.sync += [
            total.eq(with_carry(scaled >> GATE_BITS, addends[1], scaled[GATE_BITS - 1])),
            data_output(m, self.result, "combined").eq(saturated(total, VALUE_BITS)),
        ]
        return m


class Function(wiring.Component):
    """result = value, max(value, 0) or sat16(`numerics.table_value`(value, base, slope)) of the
    value's segment.

    Latency 5 cycles from `value`. `segment` goes out with `value`; the segment's `entry` is taken
    one cycle later. `relu` comes with `value`, `table` with `entry`.
    """

    LATENCY = 5

    value: In(signed(VALUE_BITS))
    segment: Out(SEGMENT_BITS)
    entry: In(ENTRY_LAYOUT)
    relu: In(1)
    table: In(1)
    result: Out(signed(VALUE_BITS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.segment.eq(self.value[TABLE_FRACTION_BITS:] ^ (1 << (SEGMENT_BITS - 1)))

        # Stages 1, 2: the value waits for its table entry.
        linear = [data_register(signed(VALUE_BITS), f"linear_{stage}") for stage in (1, 2)]
        fractions = [data_register(TABLE_FRACTION_BITS, f"fraction_{stage}") for stage in (1, 2)]
        entry = Signal(ENTRY_LAYOUT, reset_less=True)
        m.d.sync += [
            linear[0].eq(self.value),
            fractions[0].eq(self.value[:TABLE_FRACTION_BITS]),
            linear[1].eq(linear[0]),
            fractions[1].eq(fractions[0]),
            entry.eq(self.entry),
        ]
        with m.If(self.relu & self.value[-1]):
            m.d.sync += linear[0].eq(0)
        with m.If(~self.table):
            m.d.sync += entry.slope.eq(0)

        # Stages 3 to 5: base + slope·fraction, or the value + 0.
        table_2 = data_register(1, "table_2")
        base = data_register(signed(VALUE_BITS), "base")
        product = data_register(signed(VALUE_BITS + TABLE_FRACTION_BITS), "product")
        total = data_register(signed(VALUE_BITS + 1), "total")
        step = product >> TABLE_FRACTION_BITS
        m.d.sync += [
            table_2.eq(self.table),
            base.eq(Mux(table_2, entry.base, linear[1])),
            product.eq(entry.slope * fractions[1]),
            total.eq(with_carry(step, base, product[TABLE_FRACTION_BITS - 1])),
            data_output(m, self.result, "function").eq(saturated(total, VALUE_BITS)),
        ]
        return m


class Finish(wiring.Component):
    """result = value, sat16(`numerics.interpolate`(value, gate, other)) or sat16(value + gate).

    Computed as value + (gate·difference + 2^14) >> 15, with gate 0 for the value alone and
    difference 1.0 for the sum. Latency 4 cycles from `value`. `gate` and `finish` come with
    `value`, `other` one cycle before it. The last register is also the way into vector memory: with
    `take_item` in the cycle before, it holds `item`, with `beyond` it is 0.
    """

    LATENCY = 4

    value: In(signed(VALUE_BITS))
    other: In(signed(VALUE_BITS))
    gate: In(signed(VALUE_BITS))
    finish: In(2)
    item: In(VALUE_BITS)
    take_item: In(1)
    beyond: In(1)
    result: Out(signed(VALUE_BITS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = [data_register(signed(VALUE_BITS), f"value_{stage}") for stage in (1, 2)]
        other = data_register(signed(VALUE_BITS), "other_registered")
        difference = data_register(signed(VALUE_BITS + 1), "difference")
        gate = data_register(signed(VALUE_BITS), "gate_or_zero")
        product = data_register(signed(2 * VALUE_BITS + 1), "product")
        total = data_register(signed(VALUE_BITS + 2), "total")
        result = data_output(m, self.result, "result_or_item")

        m.d.sync += [
            other.eq(self.other),
            difference.eq(other - self.value),
            gate.eq(self.gate),
            values[0].eq(self.value),
            product.eq(gate * difference),
            values[1].eq(values[0]),
            total.eq(with_carry(product >> GATE_BITS, values[1], product[GATE_BITS - 1])),
            result.eq(Mux(self.take_item, self.item.as_signed(), saturated(total, VALUE_BITS))),
        ]
        with m.If(self.beyond):
            m.d.sync += result.eq(0)
        with m.If(self.finish == FinishChoice.NONE):
            m.d.sync += gate.eq(0)
        with m.If(self.finish == FinishChoice.ADD):
            m.d.sync += difference.eq(ONE)
        return m


class ColumnInput(wiring.Component):
    """column = clip(`numerics.column_input`(value), -127, 127). Latency 2 cycles.

    The rounding increment is decided before the add, so that the sum cannot leave -127..127.
    """

    LATENCY = 2

    value: In(signed(VALUE_BITS))
    column: Out(signed(COLUMN_BITS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upper = self.value[COLUMN_SHIFT:]
        highest = upper == (1 << (COLUMN_BITS - 1)) - 1
        lowest = upper == 1 << (COLUMN_BITS - 1)
        byte = data_register(signed(COLUMN_BITS), "byte")
        increment = data_register(1, "increment")
        m.d.sync += [
            byte.eq(upper),
            increment.eq((self.value[COLUMN_SHIFT - 1] & ~highest) | lowest),
            data_output(m, self.column, "rounded").eq(byte + increment),
        ]
        return m
