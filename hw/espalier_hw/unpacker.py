"""DDR beats to items and instructions: what a LOAD writes of any memory but the weights'."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import Config
from espalier.spec.memory import Memory, items_per_address

from .buffer import Buffer
from .datapath import data_output
from .interfaces import BEAT_BITS, ITEM_BITS, MEMORY_BITS, ProgramWrite, items

PART_MEMORIES = (Memory.VECTOR, Memory.SUMS, Memory.PARAMETERS)
UNIT_BITS = 16
"""Width of the number of items or instructions."""
UNPACK_PLAN = data.StructLayout({"memory": MEMORY_BITS, "address": 16, "units": UNIT_BITS})
"""What the unpacker knows of a LOAD: `units` (items, instructions) in all, or for each array of
descriptors, whose items begin on a beat of their own."""


class Unpacker(Component):
    """Turns beats into writes, in the order of `spec.memory`.

    Instructions go out at one beat a cycle, a cycle after it, items at one a cycle (two a beat),
    two cycles after it: `items.ready` ends at a buffer. `completed` pulses two cycles after the
    last beat, or the cycle after the last item was taken.

    Members
    -------
    plans: LOADs, one at a time. beats: their data in order.
    program: strobe. items: stream. idle: no LOAD is under way or waits.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "plans": In(stream.Signature(UNPACK_PLAN)),
                "beats": In(stream.Signature(BEAT_BITS)),
                "items": Out(items(config)),
                "program": Out(ProgramWrite()),
                "completed": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        plan = Signal(UNPACK_PLAN)
        left = Signal.like(plan.units)
        array = Signal(range(max(self._config.arrays, 2)))
        address = Signal(16)
        part = Signal(range(self._config.vector_lanes))
        half = Signal()
        step = Signal()
        finishing = Signal()
        idle = Signal(init=1)
        place = (array, address, part)

        segment_end = left == 1
        last_array = array == self._config.arrays - 1
        per_array = plan.memory == Memory.DESCRIPTORS
        m.d.comb += [self.plans.ready.eq(idle), self.idle.eq(idle & ~self.plans.valid)]
        with m.If(self.plans.valid & idle):
            m.d.sync += [
                plan.eq(self.plans.payload),
                left.eq(self.plans.payload.units),
                address.eq(self.plans.payload.address),
                Cat(array, part, half).eq(0),
                idle.eq(0),
            ]
        m.submodules.buffer = buffer = Buffer(self.items.payload.shape())
        connect(m, buffer.output, flipped(self.items))
        written = ~buffer.input.valid & ~self.items.valid
        m.d.sync += self.completed.eq(finishing & written)
        with m.If(finishing & written):
            m.d.sync += [finishing.eq(0), idle.eq(1)]

        running = ~idle & ~finishing
        with m.If(step):
            m.d.sync += left.eq(left - 1)
            self._advance(m, plan, place)
            with m.If(segment_end):
                m.d.sync += [left.eq(plan.units), address.eq(plan.address), half.eq(0)]
                m.d.sync += array.eq(array + 1)
                with m.If(~per_array | last_array):
                    m.d.sync += finishing.eq(1)
        self._write(m, plan, place, half, running, step, segment_end, buffer.input)
        return m

    def _advance(self, m, plan, place):
        """The place of the next unit, within one array's run."""
        array, address, part = place
        with m.Switch(plan.memory):
            with m.Case(Memory.ACTIVATIONS):
                m.d.sync += array.eq(array + 1)
                with m.If(array == self._config.arrays - 1):
                    m.d.sync += [array.eq(0), address.eq(address + 1)]
            for memory in PART_MEMORIES:
                with m.Case(memory):
                    m.d.sync += part.eq(part + 1)
                    with m.If(part == items_per_address(self._config, memory) - 1):
                        m.d.sync += [part.eq(0), address.eq(address + 1)]
            with m.Default():
                m.d.sync += address.eq(address + 1)

    def _write(self, m, plan, place, half, running, step, segment_end, items):
        """Output registers, and when a beat is used up."""
        array, address, part = place
        beat = self.beats.payload
        available = running & self.beats.valid
        valid = Signal(name="item_valid")
        m.d.comb += items.valid.eq(valid)
        item = data_output(m, items.payload, "item")
        m.d.sync += [
            self.program.valid.eq(0),
            data_output(m, self.program.address, "program_address").eq(address),
            data_output(m, self.program.data, "program_data").eq(beat),
        ]
        with m.If(items.ready):
            m.d.sync += valid.eq(0)
        with m.Switch(plan.memory):
            with m.Case(Memory.PROGRAM):
                m.d.comb += [step.eq(available), self.beats.ready.eq(running)]
                m.d.sync += self.program.valid.eq(available)
            with m.Default():
                free = ~valid | items.ready
                m.d.comb += [
                    step.eq(available & free),
                    self.beats.ready.eq(running & free & (half | segment_end)),
                ]
                with m.If(step):
                    m.d.sync += [
                        valid.eq(1),
                        item.memory.eq(plan.memory),
                        item.address.eq(address),
                        item.part.eq(part),
                        item.array.eq(array),
                        item.data.eq(beat.word_select(half, ITEM_BITS)),
                        half.eq(~half & ~segment_end),
                    ]
