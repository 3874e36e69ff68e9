"""Chunks on their way from the vector pipeline to the store unit."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, ITEM_BYTES, SUM_BITS, VALUE_BITS, Config
from espalier.spec.isa import Store

from .datapath import data_output
from .interfaces import KIND_BITS, stored_chunk

DEPTH = 32
"""Chunks that the buffer holds: what the words of an MLAB hold."""


class StoreBuffer(wiring.Component):
    """A FIFO whose room is given away before the data exists: the pipeline behind it never stalls.

    `take` reserves one place; `room` is 1 while there is one. Places fill in the order in which
    they were taken, twice: when the chunk's sums pass (`sums_valid`, early), and when its values
    pass (`values_valid`, late). Each kind has its own memory, so nobody carries 27-bit sums through
    the pipeline; a chunk leaves after its late pass, through an output register. Output order is
    taking order. Column inputs come later still, only for chunks that go as such; they pass a ring
    of their own.

    Members
    -------
    room, take: a place is free; a chunk that will be stored was taken in.
    sums_valid, sums: a stored chunk's sums pass (whether wanted or not).
    values_valid, values, kind: its values pass; `kind` (`isa.Store`) says what is wanted.
    columns_valid, columns: the column inputs of a chunk that goes as such pass.
    output: what goes to DDR; of values only the low 16·V bits count, of columns V/G items.
    """

    def __init__(self, config: Config):
        lanes = config.vector_lanes
        self._group = config.group
        super().__init__(
            {
                "room": Out(1),
                "take": In(1),
                "sums_valid": In(1),
                "sums": In(data.ArrayLayout(signed(SUM_BITS), lanes)),
                "values_valid": In(1),
                "values": In(data.ArrayLayout(signed(VALUE_BITS), lanes)),
                "kind": In(KIND_BITS),
                "columns_valid": In(1),
                "columns": In(data.ArrayLayout(signed(COLUMN_BITS), lanes)),
                "output": Out(stream.Signature(stored_chunk(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = len(self.values.as_value()) // VALUE_BITS
        free = Signal(range(DEPTH + 1), init=DEPTH)
        level, columns_level = Signal(range(DEPTH + 1)), Signal(range(DEPTH + 1))
        leaves, leaves_as_columns = Signal(), Signal()
        held, passes = Signal(), Signal()
        sums = self._ring(m, "sums", self.sums_valid, self.sums.as_value(), leaves)
        both = self._ring(m, "values", self.values_valid, Cat(self.kind, self.values), leaves)
        columns = self._ring(
            m, "columns", self.columns_valid, self.columns.as_value(), leaves_as_columns
        )
        kind, values = both[:KIND_BITS], both[KIND_BITS:]
        as_columns = kind == Store.COLUMNS
        m.d.comb += [
            self.room.eq(free != 0),
            passes.eq(~held | self.output.ready),
            leaves.eq((level != 0) & (~as_columns | (columns_level != 0)) & passes),
            leaves_as_columns.eq(leaves & as_columns),
            self.output.valid.eq(held),
        ]
        with m.If(leaves | self.output.ready):
            m.d.sync += held.eq(leaves)
        m.d.sync += [
            free.eq(free + leaves - self.take),
            level.eq(level + self.values_valid - leaves),
            columns_level.eq(columns_level + self.columns_valid - leaves_as_columns),
        ]

        stored_sums = self.sums.shape()(sums)
        extended = Cat(
            Cat(stored_sums[i], stored_sums[i][-1].replicate(32 - SUM_BITS)) for i in range(lanes)
        )
        output = data_output(m, self.output.payload, "output_held")
        with m.If(passes):  # whatever is there: only `leaves` makes it valid
            m.d.sync += [output.kind.eq(kind), output.data.eq(extended)]
            with m.If(kind == Store.VALUES):
                m.d.sync += output.data[: len(values)].eq(values)
            with m.If(as_columns):
                items = self._items(columns)
                m.d.sync += output.data[: len(items)].eq(items)
        return m

    def _ring(self, m: Module, name: str, valid: Value, content: Value, leaves: Value) -> Value:
        """What was written first and has not left; every `valid` writes a word more."""
        memory = Memory(shape=len(content), depth=DEPTH, init=[])
        m.submodules[name] = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        first = Signal(range(DEPTH), name=f"first_{name}")
        m.d.comb += [write.en.eq(valid), write.data.eq(content), read.addr.eq(first)]
        m.d.sync += [write.addr.eq(write.addr + valid), first.eq(first + leaves)]
        return read.data

    def _items(self, columns: Value) -> Value:
        """Column inputs as they lie in DDR: every group in an item of its own."""
        size = self._group * COLUMN_BITS
        padding = Const(0, 8 * ITEM_BYTES - size)
        return Cat(Cat(columns[i : i + size], padding) for i in range(0, len(columns), size))
