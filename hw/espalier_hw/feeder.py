"""The feeder: from products to one weight address a cycle with the column input that belongs to it."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import COLUMN_BITS, Config
from espalier.spec.memory import COUNT_BITS
from espalier.spec.numerics import COLUMN_MAX

from .buffer import Buffer
from .fetch import FETCH_LATENCY, Fetch, group_layout, group_write
from .interfaces import PRODUCT_COMMAND
from .weights import weight_address

FIRST_WORD_LATENCY = FETCH_LATENCY + 5
"""Cycles from the command's transfer to the product's first weight address, in an idle feeder whose first group has work:
command buffer and cursor, the fetch, group being picked, column picked, column buffered, word."""


def column_layout(config: Config) -> data.StructLayout:
    """One visit: `count` words from `address` on, times x. count 0 only tells that the product ends."""
    return data.StructLayout({
        "x": signed(COLUMN_BITS), "address": weight_address(config), "count": COUNT_BITS, "final": 1,
    })


class Picker(wiring.Component):
    """Groups to visits: one visit a cycle, lowest column first; a wide column takes two, ±127 first, then the rest.

    The next group is taken together with a group's last visit. A product's last group without work gives a visit of 0 words.
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
        valid, second, free = Signal(), Signal(), Signal()
        index = Signal(range(self._config.group))
        for i in reversed(range(self._config.group)):
            with m.If(group.work[i]):
                m.d.comb += index.eq(i)
        rest = Signal(self._config.group)
        leaves, whole = Signal(), Signal()
        m.d.comb += [
            whole.eq(~group.wide.bit_select(index, 1) | second | ~group.work.any()),
            rest.eq(group.work & (group.work - 1)),
            leaves.eq(free & whole & ~rest.any()),
            self.groups.ready.eq(~valid | leaves),
        ]
        with m.If(self.groups.ready):
            m.d.sync += [valid.eq(self.groups.valid), group.eq(self.groups.payload), second.eq(0)]
        with m.Elif(free):
            m.d.sync += second.eq(~whole)
            with m.If(whole):
                m.d.sync += group.work.eq(rest)
        self._visit(m, group, index, valid, free, second, group.final & whole & ~rest.any())
        return m

    def _visit(
        self, m: Module, group: Value, index: Value, valid: Value, free: Value, second: Value, final: Value
    ) -> None:
        """One more register stage: the picked column's fields, then its address and input."""
        column = self.columns.payload
        picked = Signal(data.StructLayout({
            "delta": group.delta[0].shape(), "offset": group.offsets[0].shape(), "count": COUNT_BITS,
            "base": group.base.shape(), "wide": 1, "second": 1, "final": 1,
        }), reset_less=True)
        m.d.comb += free.eq(~self.columns.valid | self.columns.ready)
        with m.If(free):
            m.d.sync += [
                self.columns.valid.eq(valid),
                picked.delta.eq(group.delta[index]),
                picked.offset.eq(group.offsets[index]),
                picked.count.eq(Mux(group.work.any(), group.counts[index], 0)),
                picked.base.eq(group.base),
                picked.wide.eq(group.wide.bit_select(index, 1)),
                picked.second.eq(second),
                picked.final.eq(final),
            ]
        negative = picked.delta[-1]
        rest = picked.delta + Mux(negative, COLUMN_MAX, -COLUMN_MAX)
        m.d.comb += [
            column.address.eq(picked.base + picked.offset),
            column.count.eq(picked.count),
            column.final.eq(picked.final),
            column.x.eq(picked.delta),
        ]
        with m.If(picked.wide):
            m.d.comb += column.x.eq(Mux(picked.second, rest, Mux(negative, -COLUMN_MAX, COLUMN_MAX)))


class Issuer(wiring.Component):
    """Walks a visit's words, one a cycle, the next visit right after it; `hold` takes the cycle away.

    Members
    -------
    word: `address` and `x` belong to a weight word in this cycle. done: one cycle after a product's last word.
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

    Two products wait in a buffer; the fetch of the next one runs while the words of the one before are issued, so that
    consecutive products follow without a gap. First word `FIRST_WORD_LATENCY` cycles after an idle feeder took the command.

    Cycles of a product: the largest of its words, its visits (of columns with words) and its groups, plus what the few
    buffered visits cannot smooth: a cycle in which a group gives no visit counts when visits of one word surround it.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "command": In(stream.Signature(PRODUCT_COMMAND)),
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
        m.submodules.waiting = waiting = Buffer(PRODUCT_COMMAND)
        m.submodules.fetch = fetch = Fetch(self._config)
        m.submodules.picker = picker = Picker(self._config)
        m.submodules.ahead = ahead = Buffer(column_layout(self._config))
        m.submodules.issuer = issuer = Issuer(self._config)
        connect(m, flipped(self.command), waiting.input)
        connect(m, waiting.output, fetch.command)
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
