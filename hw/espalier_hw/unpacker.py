"""DDR beats to memory writes: the loader's second half."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import Config
from espalier.spec.memory import QUAD_BITS, Memory, items_per_address

from .buffer import Buffer
from .datapath import data_output
from .interfaces import BEAT_BITS, ITEM_BITS, MEMORY_BITS, ProgramWrite, WeightWrite, items

PER_ARRAY = (Memory.WEIGHTS, Memory.DESCRIPTORS)
"""Memories of which every array has its own part, on beats of its own."""
PART_MEMORIES = (Memory.VECTOR, Memory.SUMS, Memory.PARAMETERS)


def unit_bits(config: Config) -> int:
    """Width of the number of quads, items or instructions for one array."""
    return (0xFFFF * (config.lanes // 4)).bit_length()


def unpack_layout(config: Config) -> data.StructLayout:
    """What the unpacker knows of a LOAD: `units` (quads, items, instructions) for each array, or
    in all.
    """
    return data.StructLayout({"memory": MEMORY_BITS, "address": 16, "units": unit_bits(config)})


class Unpacker(Component):
    """Turns beats into writes, in the order of `spec.memory`.

    Instructions go out at one beat a cycle, a cycle after it, items at one a cycle (two a beat),
    two cycles after it: `items.ready` ends at a buffer. Weights go out at one beat a cycle, in its
    cycle: their register is the loader's. `completed` pulses two cycles after the last beat, or the
    cycle after the last item was taken.

    Members
    -------
    plans: LOADs, one at a time. beats: their data in order.
    weights, program: strobes. items: stream. idle: no LOAD is under way or waits.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "plans": In(stream.Signature(unpack_layout(config))),
                "beats": In(stream.Signature(BEAT_BITS)),
                "weights": Out(WeightWrite(config)),
                "items": Out(items(config)),
                "program": Out(ProgramWrite()),
                "completed": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        plan = Signal(unpack_layout(self._config))
        left = Signal.like(plan.units)
        array = Signal(range(max(self._config.arrays, 2)))
        address = Signal(16)
        first = Signal(range(max(self._config.lanes // 4, 2)))
        part = Signal(range(self._config.vector_lanes))
        half = Signal()
        step = Signal()
        taken = Signal(2)
        finishing = Signal()
        idle = Signal(init=1)
        place = (array, address, first, part)

        segment_end = left <= taken
        last_array = array == self._config.arrays - 1
        per_array = Cat(plan.memory == memory for memory in PER_ARRAY).any()
        m.d.comb += [self.plans.ready.eq(idle), self.idle.eq(idle & ~self.plans.valid)]
        with m.If(self.plans.valid & idle):
            m.d.sync += [
                plan.eq(self.plans.payload),
                left.eq(self.plans.payload.units),
                address.eq(self.plans.payload.address),
                Cat(array, first, part, half).eq(0),
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
            m.d.sync += left.eq(left - taken)
            self._advance(m, plan, place, taken)
            with m.If(segment_end):
                m.d.sync += [left.eq(plan.units), address.eq(plan.address), first.eq(0), half.eq(0)]
                m.d.sync += array.eq(array + 1)
                with m.If(~per_array | last_array):
                    m.d.sync += finishing.eq(1)
        self._write(m, plan, place, left, half, running, step, taken, segment_end, buffer.input)
        return m

    def _advance(self, m, plan, place, taken):
        """The place of the next unit, within one array's run."""
        array, address, first, part = place
        quads = self._config.lanes // 4
        with m.Switch(plan.memory):
            with m.Case(Memory.WEIGHTS):
                reached = Signal(range(quads + 3))
                m.d.comb += reached.eq(first + taken)
                m.d.sync += first.eq(reached)
                with m.If(reached >= quads):
                    m.d.sync += [first.eq(reached - quads), address.eq(address + 1)]
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

    def _write(self, m, plan, place, left, half, running, step, taken, segment_end, items):
        """Output registers, and how much of a beat one step takes."""
        array, address, first, part = place
        beat = self.beats.payload
        available = running & self.beats.valid
        per_beat = self._config.quads_per_beat
        valid = Signal(name="item_valid")
        m.d.comb += items.valid.eq(valid)
        item = data_output(m, items.payload, "item")
        m.d.comb += taken.eq(1)
        m.d.comb += [
            self.weights.array.eq(array),
            self.weights.address.eq(address),
            self.weights.first.eq(first),
            self.weights.count.eq(taken),
            Value.cast(self.weights.quads).eq(beat[: per_beat * QUAD_BITS]),
        ]
        m.d.sync += [
            self.program.valid.eq(0),
            data_output(m, self.program.address, "program_address").eq(address),
            data_output(m, self.program.data, "program_data").eq(beat),
        ]
        with m.If(items.ready):
            m.d.sync += valid.eq(0)
        with m.Switch(plan.memory):
            with m.Case(Memory.WEIGHTS):
                m.d.comb += [
                    taken.eq(Mux(left < per_beat, left, per_beat)),
                    step.eq(available),
                    self.beats.ready.eq(running),
                    self.weights.valid.eq(available),
                ]
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
