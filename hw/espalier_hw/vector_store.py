"""Chunks on their way from the vector pipeline to the store unit."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from espalier.spec.config import SUM_BITS, VALUE_BITS, Config

from .datapath import data_output
from .interfaces import stored_chunk

DEPTH = 32
"""Chunks that the buffer holds: what the words of an MLAB hold."""


class StoreBuffer(wiring.Component):
    """A FIFO whose room is given away before the data exists: the pipeline behind it never stalls.

    `take` reserves one place; `room` is 1 while there is one. Places fill in the order in which
    they were taken, twice: when the chunk's sums pass (`sums_valid`, early), and when its values
    pass (`values_valid`, late). Each kind has its own memory, so nobody carries 27-bit sums through
    the pipeline; a chunk leaves after its late pass, through an output register. Output order is
    taking order.

    Members
    -------
    room, take: a place is free; a chunk that will be stored was taken in.
    sums_valid, sums: a stored chunk's sums pass (whether wanted or not).
    values_valid, values, wide: its values pass; `wide` says that the sums are wanted.
    output: what goes to DDR; of values only the low 16·V bits count.
    """

    def __init__(self, config: Config):
        lanes = config.vector_lanes
        super().__init__(
            {
                "room": Out(1),
                "take": In(1),
                "sums_valid": In(1),
                "sums": In(data.ArrayLayout(signed(SUM_BITS), lanes)),
                "values_valid": In(1),
                "values": In(data.ArrayLayout(signed(VALUE_BITS), lanes)),
                "wide": In(1),
                "output": Out(stream.Signature(stored_chunk(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = len(self.values.as_value()) // VALUE_BITS
        m.submodules.sums = sums = Memory(shape=SUM_BITS * lanes, depth=DEPTH, init=[])
        m.submodules.values = values = Memory(shape=VALUE_BITS * lanes + 1, depth=DEPTH, init=[])

        free = Signal(range(DEPTH + 1), init=DEPTH)
        level = Signal(range(DEPTH + 1))
        first = Signal(range(DEPTH))
        leaves = Signal()
        held = Signal()
        m.d.comb += [
            self.room.eq(free != 0),
            leaves.eq((level != 0) & (~held | self.output.ready)),
            self.output.valid.eq(held),
        ]
        with m.If(leaves | self.output.ready):
            m.d.sync += held.eq(leaves)
        m.d.sync += [
            free.eq(free + leaves - self.take),
            level.eq(level + self.values_valid - leaves),
            first.eq(first + leaves),
        ]

        def write(memory: Memory, valid: Value, content: Value) -> None:
            port = memory.write_port()
            m.d.comb += [port.en.eq(valid), port.data.eq(content)]
            m.d.sync += port.addr.eq(port.addr + valid)

        write(sums, self.sums_valid, self.sums.as_value())
        write(values, self.values_valid, Cat(self.wide, self.values))

        sums_read, values_read = sums.read_port(domain="comb"), values.read_port(domain="comb")
        wide, narrow = values_read.data[0], values_read.data[1:]
        extended = Signal(data.ArrayLayout(signed(32), lanes))
        stored_sums = self.sums.shape()(sums_read.data)
        m.d.comb += [extended[lane].eq(stored_sums[lane]) for lane in range(lanes)]
        m.d.comb += [
            sums_read.addr.eq(first),
            values_read.addr.eq(first),
        ]
        output = data_output(m, self.output.payload, "output_held")
        with m.If(leaves):
            m.d.sync += [output.wide.eq(wide), output.data.eq(extended)]
            with m.If(~wide):
                m.d.sync += output.data[: len(narrow)].eq(narrow)
        return m
