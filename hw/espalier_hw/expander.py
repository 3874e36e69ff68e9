"""Rows of column inputs to weights: what the loader does for an EXPAND."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import SLOTS, Config
from espalier.spec.isa import MOST_ROW_GROUPS, Expand

from .digit_writer import DigitWriter
from .expand_walk import ExpandWalk
from .interfaces import BEAT_BITS, WEIGHTS_COMMAND, WeightWrite
from .transposer import QUAD_ROWS, RowReader, Transposer
from .weights import weight_address


def whole_parts(value: Value, size: int) -> Value:
    """value / size, rounded up; without a divider where size is a power of two."""
    if size & (size - 1):
        return (value + (size - 1)) // size
    bits = (size - 1).bit_length()
    return value[bits:] + value[:bits].any()


class Expander(Component):
    """Executes EXPANDs, one at a time.

    With Expand.COLUMNS an item of one digit plane is written a cycle (8 elements in groups of 8),
    with Expand.ROWS a quad of one plane (four tokens of an element), and one cycle is lost between
    four tokens and the next four. Before the first write the distance of heads is added up: a cycle
    for each group of every array that `most` tokens take.

    A command stays until it is done: it is taken in the cycle in which the last write stands at
    `weights`, or a later one. LOADs' writes pass through, a cycle later.

    Members
    -------
    commands: WEIGHTS_COMMANDs with `expand`. last_group: number of the last group in a row.
    beats: their data. loaded: a LOAD's writes, while there is no command. weights: all writes.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "commands": In(stream.Signature(WEIGHTS_COMMAND)),
                "last_group": In(range(MOST_ROW_GROUPS)),
                "beats": In(stream.Signature(BEAT_BITS)),
                "loaded": In(WeightWrite(config)),
                "weights": Out(WeightWrite(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command = self.commands.payload
        rows = command.kind == Expand.ROWS
        left, spent = Signal.like(command.most), Signal()  # tokens; none after these
        height = Signal(range(SLOTS + 1))
        head_stride = Signal(weight_address(self._config))
        m.submodules.reader = reader = RowReader(self._config)
        m.submodules.transposer = transposer = Transposer(self._config)
        m.submodules.walk = walk = ExpandWalk(self._config)
        m.submodules.writer = writer = DigitWriter(self._config)
        connect(m, flipped(self.beats), reader.beats)
        connect(m, flipped(self.loaded), writer.loaded)
        connect(m, writer.weights, flipped(self.weights))
        m.d.comb += [
            reader.last.eq(self.last_group),
            walk.command.eq(command),
            walk.height.eq(height),
            walk.head_stride.eq(head_stride),
            walk.last_token.eq(spent),
            writer.valid.eq(walk.step),
            writer.place.eq(walk.place),
            writer.quad.eq(rows),
            writer.height.eq(height),
            writer.slots.eq(command.slots),
        ]
        self._transpose(m, rows, walk, reader.items, transposer)
        self._octet(m, rows, left, walk, reader.items.payload.data, transposer.pairs, writer)
        writing = Signal()
        there = self._there(m, rows, left, writing, walk, reader.items, transposer)
        round_of_groups = self._config.group * self._config.arrays
        counted, rest = Signal(range(round_of_groups + 1)), Signal(signed(len(left) + 1))
        m.d.comb += [
            counted.eq(Mux(rows, QUAD_ROWS, 1)),
            rest.eq(left - counted),
            spent.eq(rest <= 0),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [walk.begin.eq(1), transposer.clear.eq(1)]
                m.d.sync += [left.eq(command.most), head_stride.eq(0), height.eq(self._height())]
                with m.If(self.commands.valid):
                    m.next = "DISTANCE"
            with m.State("DISTANCE"):
                # the room of one head's columns
                m.d.comb += counted.eq(round_of_groups)
                m.d.sync += left.eq(rest)
                with m.If(~rows):
                    m.d.sync += head_stride.eq(head_stride + height * (2 * self._config.group))
                with m.If(spent):
                    m.d.sync += left.eq(command.count)
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [writing.eq(1), walk.step.eq(there)]
                with m.If(walk.row_end):
                    m.d.sync += left.eq(Mux(spent, 0, rest))
                with m.If(walk.last):
                    m.next = "LAST"
            with m.State("LAST"):
                m.d.comb += self.commands.ready.eq(~writer.busy & reader.between)
                with m.If(self.commands.ready):
                    m.next = "IDLE"
        return m

    def _height(self):
        """Words of a digit plane of a column."""
        command, config = self.commands.payload, self._config
        elements = command.groups * config.group
        return whole_parts(
            Mux(command.kind == Expand.ROWS, command.count, elements), config.lanes
        )

    def _transpose(self, m, rows, walk, items, transposer):
        """Rows go through the transposer, whose next word is asked for a step ahead."""
        last_of_pair = walk.element[0] & ~walk.place.plane
        m.d.comb += [
            transposer.items.payload.eq(items.payload),
            transposer.items.valid.eq(items.valid & rows),
            transposer.free.eq(walk.row_end & rows),
        ]
        with m.If(walk.row_end | walk.begin):
            m.d.sync += transposer.address.eq(0)
        with m.Elif(walk.step & last_of_pair):
            m.d.sync += transposer.address.eq(transposer.address + 1)

    def _there(self, m, rows, left, writing, walk, items, transposer):
        """1 when the walk can make a step; an item stays for both planes."""
        quad, answered = Signal(), Signal()
        some = (left < QUAD_ROWS) & ((left == 0) | (transposer.rows == left[:2]))
        m.d.comb += [
            quad.eq(transposer.whole | some),
            items.ready.eq(
                Mux(rows, transposer.items.ready, walk.step & walk.place.plane & ~walk.padding)
            ),
        ]
        # the transposer's memories answer a cycle later
        m.d.sync += answered.eq(quad & writing & ~walk.row_end)
        return Mux(rows, answered, items.valid | walk.padding)

    def _octet(self, m, rows, left, walk, item, pairs, writer):
        """The bytes to be written: an item, or an element of four rows; zeros where there is
        none."""
        for i, byte in enumerate(writer.octet):
            source, zero = item.word_select(i, 8), walk.padding
            if i < QUAD_ROWS:
                element = Mux(walk.element[0], pairs[i][1], pairs[i][0])
                source, zero = Mux(rows, element, source), Mux(rows, left <= i, zero)
            m.d.comb += [byte.eq(source), writer.zero[i].eq(zero)]
