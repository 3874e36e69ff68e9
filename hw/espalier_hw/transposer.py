"""Rows of column inputs to quads of one element of four rows: what makes weights of keys."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config
from espalier.spec.isa import MOST_ROW_GROUPS

from .datapath import data_output, data_register
from .interfaces import BEAT_BITS, ITEM_BITS, ITEMS_PER_BEAT

QUAD_ROWS = 4
"""Rows that are read together: four lanes, one block RAM word of weights."""
PAIR_BITS = 16
"""Two elements of a row: a word of the transposer's memories."""
ITEM = data.StructLayout({"data": ITEM_BITS, "last": 1})
"""A group of a row; `last` of the row."""


def row_padding(config: Config) -> int:
    """Bits of a group's number that are all 1 in the last group that a row has in DDR."""
    return max(config.chunk_groups, ITEMS_PER_BEAT) - 1


class RowReader(Component):
    """Beats to the items of rows: each row begins on a new beat and takes as many chunks as it
    needs, whose groups behind the last one are dropped.

    A beat is held while its items go, two cycles for each at most: `beats.ready` is a register.

    Members
    -------
    last: number of a row's last item. between: nothing is left of the rows begun.
    """

    def __init__(self, config: Config):
        self._padding = row_padding(config)
        super().__init__(
            {
                "last": In(range(MOST_ROW_GROUPS)),
                "beats": In(stream.Signature(BEAT_BITS)),
                "items": Out(stream.Signature(ITEM)),
                "between": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        number = Signal.like(self.last)
        padding, take = Signal(), Signal()
        beat, full = data_register(BEAT_BITS, "beat"), Signal()
        half, row_end = number[0], number == (self.last | self._padding)
        item = data_output(m, self.items.payload, "item")
        m.d.comb += [
            take.eq(full & (~self.items.valid | self.items.ready)),
            self.beats.ready.eq(~full),
            self.between.eq((number == 0) & ~full & ~self.items.valid),
        ]
        with m.If(~full):
            m.d.sync += [beat.eq(self.beats.payload), full.eq(self.beats.valid)]
        with m.If(self.items.ready):
            m.d.sync += self.items.valid.eq(0)
        with m.If(take):
            m.d.sync += [
                full.eq(~half),
                item.data.eq(beat.word_select(half, ITEM_BITS)),
                item.last.eq(number == self.last),
                self.items.valid.eq(~padding),
                number.eq(number + 1),
            ]
            with m.If(number == self.last):
                m.d.sync += padding.eq(1)
            with m.If(row_end):
                m.d.sync += [padding.eq(0), number.eq(0)]
        return m


class Transposer(Component):
    """Holds two times four rows: while four are read, the next four come in.

    Two elements are written a cycle, so that rows come in as fast as the two planes of their
    elements are read, a quad a cycle. `pairs` is what stands at `address` of the four rows being
    read, a cycle later.

    Members
    -------
    clear: strobe: empty, before the first row of an EXPAND.
    items: the rows. address: a pair of elements in each of the four oldest rows.
    whole: four rows are there to be read. rows: (while `whole` is 0) so many are there.
    free: strobe: four rows have been read.
    """

    def __init__(self, config: Config):
        self._item_pairs = config.group // 2
        pairs = MOST_ROW_GROUPS * self._item_pairs
        super().__init__(
            {
                "clear": In(1),
                "items": In(stream.Signature(ITEM)),
                "address": In(range(pairs)),
                "pairs": Out(data.ArrayLayout(data.ArrayLayout(8, 2), QUAD_ROWS)),
                "whole": Out(1),
                "rows": Out(range(QUAD_ROWS)),
                "free": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        item = self.items.payload
        pair = Signal.like(self.address)
        row = Signal.like(self.rows)
        written, read = Signal(), Signal()  # which half of the memories
        full = Signal(range(3))
        write, item_end, filled = Signal(), Signal(), Signal()
        part = pair[: (self._item_pairs - 1).bit_length()]
        m.d.comb += [
            write.eq(self.items.valid & ~full[1]),
            item_end.eq(write & part.all()),
            self.items.ready.eq(item_end),
            filled.eq(item_end & item.last & row.all()),
            self.whole.eq(full.any()),
            self.rows.eq(row),
        ]
        m.d.sync += [
            pair.eq(pair + write),
            full.eq(full + filled - (self.free & self.whole)),
            written.eq(written ^ filled),
            read.eq(read ^ self.free),
        ]
        with m.If(item_end & item.last):
            m.d.sync += [pair.eq(0), row.eq(row + 1)]
        with m.If(self.clear):
            m.d.sync += [signal.eq(0) for signal in (row, full, written, read)]
        for i in range(QUAD_ROWS):
            memory = Memory(shape=PAIR_BITS, depth=2 << len(pair), init=[])
            m.submodules[f"row_{i}"] = memory
            write_port, read_port = memory.write_port(), memory.read_port()
            m.d.comb += [
                write_port.addr.eq(Cat(pair, written)),
                write_port.data.eq(item.data.word_select(part, PAIR_BITS)),
                write_port.en.eq(write & (row == i)),
                read_port.addr.eq(Cat(self.address, read)),
                Value.cast(self.pairs[i]).eq(read_port.data),
            ]
        return m
