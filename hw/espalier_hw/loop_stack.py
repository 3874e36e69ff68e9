"""Nested hardware loops."""

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.isa import LOOP_DEPTH

PC_BITS = 17
"""An instruction address, or the one after the last."""
FRAME = data.StructLayout({"start": PC_BITS, "left": 32})


class LoopStack(Component):
    """The open loops, innermost on top: where the body starts and how many passes are left.

    `push` opens a loop of `count` >= 1 passes (this is the first); `end` ends a pass: `again` says
    at the same time whether another one follows at `start`, otherwise the loop is closed; `clear`
    closes all. One operation in two cycles: `again` is registered. `opening` must be 1 with `push`
    and 0 with `end`: it selects what is written, so that a late `push` is not in that path.
    """

    start: Out(PC_BITS)
    again: Out(1)
    empty: Out(1)
    full: Out(1)
    clear: In(1)
    opening: In(1)
    push: In(1)
    end: In(1)
    body: In(PC_BITS)
    count: In(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.frames = frames = Memory(shape=FRAME, depth=LOOP_DEPTH, init=[])
        write, read = frames.write_port(), frames.read_port(domain="comb")
        level = Signal(range(LOOP_DEPTH + 1))
        top = read.data
        m.d.comb += [
            self.empty.eq(level == 0),
            self.full.eq(level == LOOP_DEPTH),
            read.addr.eq(level - 1),
            self.start.eq(top.start),
            write.addr.eq(Mux(self.opening, level, level - 1)),
            write.en.eq(self.push | self.end),
            write.data.start.eq(Mux(self.opening, self.body, top.start)),
            write.data.left.eq(Mux(self.opening, self.count, top.left - 1)),
        ]
        m.d.sync += self.again.eq(top.left != 1)
        with m.If(self.clear):
            m.d.sync += level.eq(0)
        with m.Elif(self.push):
            m.d.sync += level.eq(level + 1)
        with m.Elif(self.end & ~self.again):
            m.d.sync += level.eq(level - 1)
        return m
