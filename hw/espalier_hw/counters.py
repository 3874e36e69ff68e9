"""64-bit event counters in block memory."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from espalier.spec.config import Config
from espalier.spec.registers import COUNTERS

from .interfaces import EngineEvents

COUNTER_BITS = 64
PLACES = 16
"""Cycles between two additions to the same counter; at least the number of counters."""
SWEEP_CYCLES = 2 * PLACES
"""After that many cycles without events every counter is up to date."""


class Events(Signature):
    """How much every counter grows in a cycle."""

    def __init__(self, config: Config):
        engine = EngineEvents(config).members
        super().__init__(
            {name: Out(engine[name].shape if name in engine else 1) for name in COUNTERS}
        )


class Counters(Component):
    """Counts events exactly, one counter after the other.

    Every counter's events are gathered in a small register for 16 cycles and then added to its 64
    bits in memory: one adder for all. `clear` makes all of them 0 (events of that cycle are not
    counted).

    Members
    -------
    index, data: the counter read, and its value a cycle later.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "events": In(Events(config)),
                "clear": In(1),
                "index": In(range(PLACES)),
                "data": Out(COUNTER_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=COUNTER_BITS, depth=PLACES, init=[])
        write, old, host = memory.write_port(), memory.read_port(), memory.read_port()
        place = Signal(range(PLACES))
        last, written = Signal.like(place), Signal.like(place)
        stale = Signal(PLACES)
        gathered = [self._gather(m, index, name, last) for index, name in enumerate(COUNTERS)]
        total, amount = Signal(COUNTER_BITS), Signal(max(len(value) for value in gathered))
        m.d.sync += [
            place.eq(place + 1),
            last.eq(place),
            written.eq(last),
            stale.bit_select(last, 1).eq(0),
            total.eq(Mux(stale.bit_select(last, 1), 0, old.data)),
            amount.eq(Array(gathered)[last]),
        ]
        with m.If(self.clear):
            m.d.sync += stale.eq(-1)
        m.d.comb += [
            old.addr.eq(place),
            write.addr.eq(written),
            write.data.eq(total + amount),
            write.en.eq(written < len(COUNTERS)),
            host.addr.eq(self.index),
            self.data.eq(host.data),
        ]
        return m

    def _gather(self, m, index, name, last):
        """Events of one counter since it was last added."""
        events = getattr(self.events, name)
        gathered = Signal(range((2 ** len(events) - 1) * PLACES + 1), name=f"{name}_gathered")
        m.d.sync += gathered.eq(Mux(last == index, 0, gathered) + events)
        with m.If(self.clear):
            m.d.sync += gathered.eq(0)
        return gathered
