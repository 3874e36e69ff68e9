"""The feeder's front end: reads columns group by group and decides which are worth a visit."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import Config
from espalier.spec.isa import Mode
from espalier.spec.memory import COUNT_BITS

from .cursor import HAZARD_BITS, Cursor, product_layout, writes
from .deltas import DELTA_BITS, DELTA_STAGES, Deltas, Offsets, offset_shape
from .group_memories import GroupMemories, group_write
from .weights import weight_address

FETCH_LATENCY = 1 + DELTA_STAGES
"""Cycles from a group's read address to its place in the output."""


def group_layout(config: Config) -> data.StructLayout:
    """A group after the threshold. Column i with `work[i]` has counts[i] words from base +
    offsets[i] on, and two visits when `wide[i]`."""
    return data.StructLayout({
        "work": config.group,
        "wide": config.group,
        "delta": data.ArrayLayout(signed(DELTA_BITS), config.group),
        "base": weight_address(config),
        "offsets": data.ArrayLayout(offset_shape(config), config.group),
        "counts": data.ArrayLayout(COUNT_BITS, config.group),
        "final": 1,
    })


def ones(bits: Value) -> Value:
    """The number of 1 bits."""
    return sum(bits[1:], start=bits[0])


class Fetch(wiring.Component):
    """Groups of columns with their differences and the places of their words.

    Stages: read | operands | delta | group; all move together, one group a cycle, when the group
    at the end leaves: to the output, or dropped because it has no work and is not its product's
    last. The next product's first group follows right after the last one. CLEAR makes groups
    without work. A last-sent value is written `FETCH_LATENCY` cycles after its read; a read that
    may meet a pending write waits for it.

    Members
    -------
    visits, skipped: events, in one cycle for each group, before it leaves. CLEAR counts nothing.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "command": In(stream.Signature(product_layout(config))),
            "write": In(group_write(config)),
            "groups": Out(stream.Signature(group_layout(config))),
            "visits": Out(range(2 * config.group + 1)),
            "skipped": Out(range(config.group + 1)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cursor = cursor = Cursor(self._config)
        connect(m, flipped(self.command), cursor.command)
        move, fresh, start = Signal(), Signal(), Signal()
        valid = Signal(FETCH_LATENCY)
        tags = [
            Signal.like(cursor.tag, name=f"tag_{stage}", reset_less=True)
            for stage in range(FETCH_LATENCY)
        ]
        # the last stage's value is written in the first cycle of its stay
        pending = zip([*valid[:-1], fresh], tags, strict=True)
        hazard = Cat(
            busy & writes(tag) & (tag.last[:HAZARD_BITS] == cursor.low[: len(tag.last)])
            for busy, tag in pending
        )
        m.d.comb += [start.eq(cursor.valid & ~hazard.any()), cursor.enable.eq(start & move)]
        m.d.sync += fresh.eq(move & valid[-2])
        with m.If(move):
            m.d.sync += valid.eq(Cat(start, valid))
            for tag, previous in zip(tags, [cursor.tag, *tags], strict=False):
                m.d.sync += tag.eq(previous)
        self._data(m, cursor, move, fresh, tags)
        empty = ~self.groups.payload.work.any() & ~self.groups.payload.final
        m.d.comb += [
            self.groups.valid.eq(valid[-1] & ~empty),
            move.eq(~valid[-1] | empty | self.groups.ready),
        ]
        return m

    def _data(self, m: Module, cursor: Cursor, move: Value, fresh: Value, tags: list) -> None:
        m.submodules.memories = memories = GroupMemories(self._config)
        m.submodules.deltas = deltas = Deltas(self._config)
        m.submodules.offsets = offsets = Offsets(self._config)
        out, read, group = self.groups.payload, tags[0], tags[-1]
        m.d.comb += [
            memories.write.eq(self.write),
            memories.read.eq(move),
            memories.x_address.eq(cursor.activations),
            memories.s_address.eq(cursor.tag.last),
            memories.words_address.eq(cursor.descriptors),
            memories.kept.enable.eq(fresh & writes(group)),
            memories.kept.address.eq(group.last),
            memories.kept.data.eq(deltas.kept),
            deltas.move.eq(move),
            deltas.x.eq(memories.x),
            deltas.s.eq(memories.s),
            deltas.mode.eq(read.mode),
            deltas.threshold.eq(read.threshold),
            deltas.present.eq(offsets.present),
            offsets.move.eq(move),
            offsets.words.eq(memories.words),
            out.work.eq(deltas.work),
            out.wide.eq(deltas.wide),
            out.delta.eq(deltas.delta),
            out.base.eq(offsets.base),
            out.offsets.eq(offsets.offsets),
            out.counts.eq(offsets.counts),
            out.final.eq(group.final),
        ]
        sent = ones(deltas.sent)
        with m.If(fresh & (group.mode != Mode.CLEAR)):
            m.d.comb += [
                self.visits.eq(sent + ones(deltas.wide)),
                self.skipped.eq(self._config.group - sent),
            ]
