"""The order in which VECTORs complete, when some wait for their scalar."""

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out

from .queues import Queue
from .scoreboard import MOST


class Completions(Component):
    """`completed` pulses once for each command, in order.

    A command comes with `finished` when all but its scalar is written; `reduces` says that a scalar
    is to come, whose `scalar_written` may be long after. Without one before it, a command that
    reduces nothing completes in the cycle in which it comes; others a cycle or more later.
    """

    finished: In(1)
    reduces: In(1)
    scalar_written: In(1)
    completed: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = Queue(unsigned(1), MOST)
        waiting = queue.output
        scalars, late = Signal(range(4)), Signal()
        passes, leaves = Signal(), Signal()
        m.d.comb += [
            passes.eq(self.finished & ~self.reduces & ~waiting.valid & ~late),
            queue.input.valid.eq(self.finished & ~passes),
            queue.input.payload.eq(self.reduces),
            leaves.eq(waiting.valid & (~waiting.payload | (scalars != 0))),
            waiting.ready.eq(leaves),
            self.completed.eq(passes | late),
        ]
        m.d.sync += [
            late.eq(leaves),
            scalars.eq(scalars + self.scalar_written - (leaves & waiting.payload)),
        ]
        return m
