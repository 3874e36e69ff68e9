"""What every unit still has to finish, and which instruction may go."""

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.isa import NO_WAIT, UNITS

MOST = {"load": 8, "weights": 8, "engine": 16, "vector": 32, "store": 16}
"""A unit holds fewer instructions; one-chunk VECTORs can be in every stage of their pipeline."""
FLAGS = data.StructLayout({unit: 1 for unit in UNITS})
WAITS = data.StructLayout({unit: 2 for unit in UNITS})


class Scoreboard(Component):
    """Counts the outstanding instructions of each unit: issued, not completed.

    `met` = for every unit, wait = 3 or outstanding <= wait, and outstanding < MOST; of the last
    cycle's `waits`, with everything that was completed until then, but only what was issued until
    the cycle before that. `idle` marks units with nothing outstanding. A count of n is n ones from
    bit 0 up: a wait is one bit looked up, because `met` begins the sequencer's longest paths.
    `waitless` says that `waits` has none for `weights`.
    """

    issued: In(FLAGS)
    completed: In(FLAGS)
    waits: In(WAITS)
    waitless: In(1)
    met: Out(1)
    idle: Out(FLAGS)

    def elaborate(self, platform):
        m = Module()
        within = Signal(FLAGS)
        for unit in UNITS:
            outstanding = Signal(MOST[unit], name=f"{unit}_outstanding")
            free = self.waits[unit] == NO_WAIT
            if unit == "weights":
                free = free | self.waitless
            with m.If(self.issued[unit] & ~self.completed[unit]):
                m.d.sync += outstanding.eq(Cat(1, outstanding))
            with m.Elif(~self.issued[unit] & self.completed[unit]):
                m.d.sync += outstanding.eq(outstanding[1:])
            left = Mux(self.completed[unit], outstanding[1:], outstanding)
            busy = Mux(free, 0, left[:NO_WAIT].bit_select(self.waits[unit], 1))
            m.d.comb += [
                within[unit].eq(~busy & ~left[-1]),
                self.idle[unit].eq(~outstanding[0]),
            ]
        m.d.sync += self.met.eq(within.as_value().all())
        return m
