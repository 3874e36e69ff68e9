"""What every unit still has to finish, and which instruction may go."""

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.isa import NO_WAIT, UNITS

OUTSTANDING_BITS = 6
"""A unit holds fewer instructions than that counts; one-chunk VECTORs can be in every stage of
their pipeline.
"""
FLAGS = data.StructLayout({unit: 1 for unit in UNITS})
WAITS = data.StructLayout({unit: 2 for unit in UNITS})


class Scoreboard(Component):
    """Counts the outstanding instructions of each unit: issued, not completed.

    `met` = for every unit, wait = 3 or outstanding <= wait, with the counts of the last cycle;
    `idle` marks units with nothing outstanding.
    """

    issued: In(FLAGS)
    completed: In(FLAGS)
    waits: In(WAITS)
    met: Out(1)
    idle: Out(FLAGS)

    def elaborate(self, platform):
        m = Module()
        within = Signal(FLAGS)
        for unit in UNITS:
            outstanding = Signal(OUTSTANDING_BITS, name=f"{unit}_outstanding")
            m.d.sync += outstanding.eq(outstanding + self.issued[unit] - self.completed[unit])
            m.d.comb += [
                within[unit].eq((self.waits[unit] == NO_WAIT) | (outstanding <= self.waits[unit])),
                self.idle[unit].eq(outstanding == 0),
            ]
        m.d.comb += self.met.eq(within.as_value().all())
        return m
