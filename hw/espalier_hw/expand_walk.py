"""The order in which an EXPAND writes weights."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import SLOTS, Config
from espalier.spec.isa import Expand

from .column_walk import ColumnWalk
from .interfaces import WEIGHTS_COMMAND
from .weights import weight_address


def place_layout(config: Config) -> data.StructLayout:
    """Where a write goes, as sums to be made: the column's first word is `column` + `head`, in it
    the word is `word` (behind it by a plane's height in the high `plane`), and the slot is `slot` +
    `word` (more by a plane's slots). `first` is the quad in the word."""
    address = weight_address(config)
    return data.StructLayout(
        {
            "array": range(max(config.arrays, 2)),
            "column": address,
            "head": address,
            "word": range(SLOTS + 1),
            "first": range(max(config.lanes // 4, 2)),
            "slot": range(SLOTS),
            "plane": 1,
        }
    )


class ExpandWalk(Component):
    """Nested counters over everything that an EXPAND writes; a `step` is one write.

    With Expand.COLUMNS a write is an item of one digit plane: for each token, for each head, for
    each item of the head, and then for zeros until the head's words are whole, both planes. With
    Expand.ROWS it is one element of four tokens: for each four lanes, for each head, for each item,
    for each of its elements, both planes. Lanes and slots are counted, addresses added up.

    Members
    -------
    command: held from `begin` (strobe) to the last step. height: words of a plane of a column.
    head_stride: words from one head's columns to the next one's; 0 with Expand.ROWS.
    last_token: (Expand.COLUMNS) no other follows.
    place: where the step writes. element: its number in the group (Expand.ROWS).
    padding: the item is zeros. row_end: the step ends a token, or four lanes. last: it is the last.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "command": In(WEIGHTS_COMMAND),
                "height": In(range(SLOTS + 1)),
                "head_stride": In(weight_address(config)),
                "begin": In(1),
                "step": In(1),
                "last_token": In(1),
                "place": Out(place_layout(config)),
                "element": Out(range(config.group)),
                "padding": Out(1),
                "row_end": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command, place = self.command, self.place
        m.submodules.columns = columns = ColumnWalk(self._config)
        rows = command.kind == Expand.ROWS
        both = Signal()
        item_end, head_end = Signal(), Signal()
        groups, heads = Signal.like(command.groups), Signal.like(command.heads)
        whole = Signal()  # the last quads of a plane
        last_group, last_head = groups == 1, heads == 1
        m.d.comb += [
            both.eq(self.step & place.plane),
            item_end.eq(both & (~rows | columns.last)),
            head_end.eq(Mux(rows, item_end & last_group, both & whole)),
            self.row_end.eq(head_end & last_head),
            self.last.eq(self.row_end & Mux(rows, whole, self.last_token)),
        ]
        self._columns(m, columns, rows, both)
        m.d.sync += place.plane.eq(place.plane ^ self.step)
        self._place(m, rows, Mux(rows, self.row_end, both), whole)
        with m.If(item_end):
            m.d.sync += groups.eq(groups - 1)
            with m.If(last_group):
                m.d.sync += self.padding.eq(1)
        with m.If(head_end | self.begin):
            m.d.sync += [groups.eq(command.groups), self.padding.eq(0)]
        with m.If(self.row_end | self.begin):
            m.d.sync += [heads.eq(command.heads), place.slot.eq(command.slot), place.head.eq(0)]
        with m.Elif(head_end):
            m.d.sync += [
                heads.eq(heads - 1),
                place.slot.eq(place.slot + (command.slots << 1)),
                place.head.eq(place.head + self.head_stride),
            ]
        return m

    def _columns(self, m, columns, rows, both):
        place = self.place
        m.d.comb += [
            columns.restart.eq(self.begin | (rows & self.row_end)),
            columns.address.eq(self.command.address),
            columns.advance.eq(Mux(rows, both, self.row_end)),
            columns.stride.eq(self.height << 1),
            place.array.eq(columns.array),
            place.column.eq(columns.word),
            self.element.eq(columns.column),
        ]

    def _place(self, m, rows, step, whole):
        """Word of the plane and quad of the word: one quad on, or an item's."""
        place = self.place
        quads, item_quads = self._config.lanes // 4, self._config.group // 4
        following = Signal.like(place.word)
        word_end = place.first == Mux(rows, quads - 1, quads - item_quads)
        m.d.comb += [
            following.eq(place.word + 1),
            whole.eq(word_end & (following == self.height)),
        ]
        with m.If(step):
            m.d.sync += place.first.eq(place.first + Mux(rows, 1, item_quads))
            with m.If(word_end):
                m.d.sync += [place.first.eq(0), place.word.eq(following)]
                with m.If(whole):
                    m.d.sync += place.word.eq(0)
