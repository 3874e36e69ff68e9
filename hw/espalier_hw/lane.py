"""One multiply-accumulate lane: a 4-bit digit times an 8-bit input, added into one of 32 slots."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from espalier.spec.config import ACCUMULATOR_BITS, COLUMN_BITS, SLOTS
from espalier.spec.memory import ENTRY

from .chip import is_ecp5
from .datapath import data_output

_DIGIT, _SLOT = ENTRY.fields
CLEAR_DELAY = 2
"""Cycles from an entry to its `clear`: the entry is then at its slot."""
LANE_LATENCY = CLEAR_DELAY + 1
"""Cycles from an entry to the drained value of its slot."""


def booth(bits: Value, x: Value) -> tuple[Value, Value]:
    """Radix-4 Booth: (p, n) with p + n = (-2·bits[2] + bits[1] + bits[0])·x and n in {0, 1}.

    bits has 3 bits, x 8 signed ones above -128; p has 9 bits and is not yet signed: bit 8 is its
    sign.
    """
    one, two = bits[0] ^ bits[1], (bits[0] == bits[1]) & (bits[1] != bits[2])
    once = Cat(x.as_unsigned(), x[-1])
    twice = Cat(0, x.as_unsigned())
    magnitude = Mux(one, once, Mux(two, twice, 0))
    return magnitude ^ bits[2].replicate(COLUMN_BITS + 1), bits[2]


class Lane(wiring.Component):
    """slot[s] += digit·x in every cycle, or read out and cleared.

    Stages: partial products | their sum | slot read, added | slot written. Every cycle adds: idle
    ones have x = 0. The written sum is in the slot memory two cycles after the read, so an entry
    that hits the slot of one of the two before it takes the sum from a register; a slot is never
    read in a cycle in which its memory word changes. On an ECP5 it may be: there only the sum of
    the entry right before is taken from a register.

    To drain, send the slot with x = 0 and `clear` = 1 `CLEAR_DELAY` cycles later: `drained` is the
    accumulator from `LANE_LATENCY` cycles after the slot until the next drain; the slot becomes 0.

    Bound: accumulators wrap at 20 bits; the compiler proves that final values fit. x is in [-127,
    127], so that |digit·x| <= 1016 fits 11 bits.

    Parameters
    ----------
    multiplier: multiply in a DSP block instead of LUTs, in as many cycles.
    """

    def __init__(self, *, multiplier: bool = False) -> None:
        self._multiplier = multiplier
        super().__init__({
            "digit": In(signed(_DIGIT.width)),
            "slot": In(_SLOT.width),
            "x": In(signed(COLUMN_BITS)),
            "clear": In(1),
            "drained": Out(signed(ACCUMULATOR_BITS)),
        })
        self.accumulators = Memory(shape=ACCUMULATOR_BITS, depth=SLOTS, init=[])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = [Signal(_SLOT.width, name=f"slot_{stage}", reset_less=True) for stage in range(3)]
        m.d.sync += [slots[0].eq(self.slot), slots[1].eq(slots[0]), slots[2].eq(slots[1])]
        product, carry = self._multiply(m)
        self._accumulate(m, slots, product, carry, settled=is_ecp5(platform))
        return m

    def _multiply(self, m: Module) -> tuple[Value, Value]:
        """digit·x = product + carry, two cycles after the entry."""
        if self._multiplier:
            digit, x = (Signal.like(one, reset_less=True) for one in (self.digit, self.x))
            product = Signal(signed(len(digit) + len(x)), reset_less=True)
            m.d.sync += [digit.eq(self.digit), x.eq(self.x), product.eq(digit * x)]
            return product, Const(0)
        wide = COLUMN_BITS + 1
        low, high, top = (Signal(wide, name=n, reset_less=True) for n in ("low", "high", "top"))
        bottom = Signal(2, reset_less=True)
        low_carry, high_carry, carry = (
            Signal(name=name, reset_less=True) for name in ("low_carry", "high_carry", "carry")
        )
        digit = self.digit.as_unsigned()
        for bits, part, part_carry in (
            (Cat(0, digit[:2]), low, low_carry),
            (digit[1:], high, high_carry),
        ):
            value, correction = booth(bits, self.x)
            m.d.sync += [part.eq(value), part_carry.eq(correction)]
        shifted = Cat(low[2:], low[-1].replicate(2))
        m.d.sync += [
            # a carry-in written as one adder costs one more bit
            top.eq((Cat(1, shifted) + Cat(high_carry, high))[1:]),
            bottom.eq(low[:2]),
            carry.eq(low_carry),
        ]
        return Cat(bottom, top).as_signed(), carry

    def _accumulate(
        self, m: Module, slots: list[Signal], product: Value, carry: Value, *, settled: bool
    ) -> None:
        """`settled`: a word may be read in the cycle after it was written."""
        m.submodules.accumulators = self.accumulators
        read, write = self.accumulators.read_port(domain="comb"), self.accumulators.write_port()
        written, older = (
            Signal(ACCUMULATOR_BITS, name=name, reset_less=True) for name in ("written", "older")
        )
        drained = data_output(m, self.drained, "drained_held")
        again, again_older = Signal(reset_less=True), Signal(reset_less=True)
        stored, old, total = (
            Signal(ACCUMULATOR_BITS, name=name) for name in ("stored", "old", "total")
        )
        addend = Signal(signed(ACCUMULATOR_BITS))
        m.d.comb += [
            read.addr.eq(slots[1]),
            stored.eq(read.data if settled else Mux(again_older, older, read.data)),
            old.eq(Mux(again, written, stored)),
            addend.eq(product),
            total.eq((Cat(1, old) + Cat(carry, addend.as_unsigned()))[1:]),
            write.addr.eq(slots[2]),
            write.data.eq(written),
            write.en.eq(1),
        ]
        m.d.sync += [
            again.eq(slots[0] == slots[1]),
            again_older.eq(slots[0] == slots[2]),
            written.eq(Mux(self.clear, 0, total)),
            older.eq(written),
        ]
        with m.If(self.clear):
            # x = 0 while draining: the sum is the slot itself
            m.d.sync += drained.eq(total)
