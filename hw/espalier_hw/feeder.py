"""The feeder: from products to one weight address a cycle, with the column input beside it."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import COLUMN_BITS, Config
from espalier.spec.memory import COUNT_BITS
from espalier.spec.numerics import COLUMN_MAX

from .buffer import Buffer
from .cursor import product_layout
from .deltas import DELTA_BITS
from .fetch import FETCH_LATENCY, Fetch, group_layout
from .group_memories import group_write
from .weights import weight_address

FIRST_WORD_LATENCY = FETCH_LATENCY + 5
"""Cycles from the command to the first weight address, in an idle feeder whose first group has
work: product, fetch, group, column picked, column buffered, word."""


def column_layout(config: Config) -> data.StructLayout:
    """One visit: `count` words from `address` on, times x; `final`: the product's last.

    A count of 0 only tells that the product ends.
    """
    return data.StructLayout({
        "x": signed(COLUMN_BITS),
        "address": weight_address(config),
        "count": COUNT_BITS,
        "final": 1,
    })


def without_lowest(bits: Value) -> Value:
    """All 1 bits but the lowest."""
    return Cat(bits[i] & bits[:i].any() for i in range(len(bits)))


class Picker(wiring.Component):
    """Groups to visits: one visit a cycle, lowest column first.

    A column with |delta| > 127 takes two visits, ±127 first, then the rest. The next group is
    taken together with a group's last column. A product's last group without work gives a visit of
    0 words.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "groups": In(stream.Signature(group_layout(config))),
            "columns": Out(stream.Signature(column_layout(config))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        group = Signal(group_layout(self._config), reset_less=True)
        valid, free, alone = Signal(), Signal(), Signal(reset_less=True)
        rest = without_lowest(group.work)
        m.d.comb += self.groups.ready.eq(~valid | (free & alone))
        with m.If(self.groups.ready):
            m.d.sync += [
                valid.eq(self.groups.valid),
                group.eq(self.groups.payload),
                # known a cycle ahead, because all of the fetch waits for it
                alone.eq(~without_lowest(self.groups.payload.work).any()),
            ]
        with m.Elif(free):
            m.d.sync += [group.work.eq(rest), alone.eq(~without_lowest(rest).any())]
        m.d.comb += free.eq(self._visit(m, self._pick(m, group, alone, free), valid, free))
        return m

    def _pick(self, m: Module, group: data.View, alone: Value, free: Value) -> data.View:
        """The lowest column with work, a cycle later."""
        index, present = Signal(range(self._config.group)), group.work.any()
        for i in reversed(range(self._config.group)):
            with m.If(group.work[i]):
                m.d.comb += index.eq(i)
        layout = data.StructLayout({
            "delta": signed(DELTA_BITS),
            "offset": group.offsets[0].shape(),
            "count": COUNT_BITS,
            "base": group.base.shape(),
            "wide": 1,
            "final": 1,
        })
        picked = Signal(layout, reset_less=True)
        with m.If(free):
            m.d.sync += [
                picked.delta.eq(group.delta[index]),
                picked.offset.eq(group.offsets[index]),
                picked.count.eq(Mux(present, group.counts[index], 0)),
                picked.base.eq(group.base),
                picked.wide.eq(group.wide.bit_select(index, 1)),
                picked.final.eq(group.final & alone),
            ]
        return picked

    def _visit(self, m: Module, picked: data.View, valid: Value, free: Value) -> Value:
        """Puts out the picked column's visits; when the next column may be picked."""
        column, second = self.columns.payload, Signal()
        first, negative = picked.wide & ~second, picked.delta[-1]
        limit = Mux(negative, -COLUMN_MAX, COLUMN_MAX)
        m.d.comb += [
            column.address.eq(picked.base + picked.offset),
            column.count.eq(picked.count),
            column.final.eq(picked.final & ~first),
            column.x.eq(Mux(first, limit, picked.delta - Mux(second, limit, 0))),
        ]
        with m.If(free):
            m.d.sync += [self.columns.valid.eq(valid), second.eq(0)]
        with m.Elif(self.columns.ready):
            m.d.sync += second.eq(1)
        return ~self.columns.valid | (self.columns.ready & ~first)


class Issuer(wiring.Component):
    """Walks a visit's words, one a cycle, the next visit right after it; `hold` takes the cycle
    away.

    Members
    -------
    word: `address` and `x` belong to a weight word in this cycle. done: one cycle after a
    product's last word.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "columns": In(stream.Signature(column_layout(config))),
            "hold": In(1),
            "word": Out(1),
            "address": Out(weight_address(config)),
            "x": Out(signed(COLUMN_BITS)),
            "done": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        column = self.columns.payload
        valid, final = Signal(), Signal(reset_less=True)
        left = Signal(COUNT_BITS, reset_less=True)
        last = Signal()
        m.d.comb += [
            last.eq(left[1:] == 0),
            self.columns.ready.eq(~self.hold & (~valid | last)),
            self.word.eq(valid & ~self.hold & left.any()),
        ]
        m.d.sync += self.done.eq(valid & ~self.hold & last & final)
        with m.If(self.columns.ready):
            m.d.sync += [
                valid.eq(self.columns.valid),
                self.address.eq(column.address),
                self.x.eq(column.x),
                left.eq(column.count),
                final.eq(column.final),
            ]
        with m.Elif(~self.hold):
            m.d.sync += [self.address.eq(self.address + 1), left.eq(left - 1)]
        return m


class Feeder(wiring.Component):
    """Products in, one weight word a cycle out.

    The fetch of the next product runs while the words of the one before are issued, so that
    consecutive products follow without a gap. In an idle feeder the first word comes
    `FIRST_WORD_LATENCY` cycles after the command.

    Cycles of a product from its first word to its last: the words, when every group has work. In
    general max(words, sum over groups of max(1, visits of columns with words)) but for a few
    cycles: two visits and one group are buffered, so that groups without work take cycles only
    where longer visits before them do not cover these. `hold` adds its cycles.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "command": In(stream.Signature(product_layout(config))),
            "write": In(group_write(config)),
            "hold": In(1),
            "word": Out(1),
            "address": Out(weight_address(config)),
            "x": Out(signed(COLUMN_BITS)),
            "done": Out(1),
            "visits": Out(range(2 * config.group + 1)),
            "skipped": Out(range(config.group + 1)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetch = fetch = Fetch(self._config)
        m.submodules.picker = picker = Picker(self._config)
        m.submodules.ahead = ahead = Buffer(column_layout(self._config))
        m.submodules.issuer = issuer = Issuer(self._config)
        connect(m, flipped(self.command), fetch.command)
        connect(m, fetch.groups, picker.groups)
        connect(m, picker.columns, ahead.input)
        connect(m, ahead.output, issuer.columns)
        m.d.comb += [
            fetch.write.eq(self.write),
            issuer.hold.eq(self.hold),
            self.word.eq(issuer.word),
            self.address.eq(issuer.address),
            self.x.eq(issuer.x),
            self.done.eq(issuer.done),
            self.visits.eq(fetch.visits),
            self.skipped.eq(fetch.skipped),
        ]
        return m
