"""The feeder's front end: reads columns group by group and decides which are worth a visit."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import ITEM_BYTES, Config
from espalier.spec.isa import Mode
from espalier.spec.memory import COUNT_BITS

from .cursor import Cursor, index, product_layout, tag_layout, writes
from .deltas import (
    DELTA_BITS,
    STEPS,
    Deltas,
    Offsets,
    columns_layout,
    descriptor_layout,
    offset_shape,
)
from .weights import weight_address

STAGES = ("read", *STEPS)
FETCH_LATENCY = len(STAGES)
"""Cycles from a group's read address to its place in the output."""
HAZARD_BITS = 4
"""Address bits compared between reads and pending writes: the few neighbouring groups in flight differ in them."""


def group_layout(config: Config) -> data.StructLayout:
    """A group after the threshold: column i with `work[i]` has counts[i] words from base + offsets[i] on."""
    return data.StructLayout({
        "work": config.group,
        "delta": data.ArrayLayout(signed(DELTA_BITS), config.group),
        "base": weight_address(config),
        "offsets": data.ArrayLayout(offset_shape(config), config.group),
        "counts": data.ArrayLayout(COUNT_BITS, config.group),
        "final": 1,
    })


def group_write(config: Config) -> data.StructLayout:
    """One word from the loader or the vector unit into the activations, or from the loader into the descriptors."""
    return data.StructLayout({
        "activations": 1,
        "descriptors": 1,
        "address": index(max(config.column_depth, config.descriptor_depth)),
        "data": 8 * ITEM_BYTES,
    })


def ones(bits: Value) -> Value:
    """The number of 1 bits."""
    return sum(bits[1:], start=bits[0])


class GroupMemories(wiring.Component):
    """Activations x, last-sent values s and descriptors of one array, a group a word; outputs one
    cycle after `read`.

    All in block RAM with one write and one read a cycle. Outputs stay until the next `read`. A
    word is never read in the cycle in which it is written: `Fetch` keeps reads of s away, the
    program's waits those of x and the descriptors.
    """

    def __init__(self, config: Config):
        self._config = config
        columns = columns_layout(config)
        super().__init__({
            "write": In(group_write(config)),
            "keep": In(data.StructLayout({"enable": 1, "address": index(config.column_depth), "data": columns})),
            "read": In(1),
            "x_address": In(index(config.column_depth)),
            "s_address": In(index(config.column_depth)),
            "words_address": In(index(config.descriptor_depth)),
            "x": Out(columns),
            "s": Out(columns),
            "words": Out(descriptor_layout(config)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c, new = self._config, self.write
        columns, words = columns_layout(c).size, descriptor_layout(c).size
        for name, depth, width, enable, to, value, address, output in (
            ("activations", c.column_depth, columns, new.activations, new.address, new.data, self.x_address, self.x),
            ("last_sent", c.column_depth, columns, self.keep.enable, self.keep.address, self.keep.data,
             self.s_address, self.s),
            ("descriptors", c.descriptor_depth, words, new.descriptors, new.address, new.data,
             self.words_address, self.words),
        ):
            m.submodules[name] = memory = Memory(shape=width, depth=depth, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(enable), write.addr.eq(to), write.data.eq(value),
                read.en.eq(self.read), read.addr.eq(address), Value.cast(output).eq(read.data),
            ]
        return m


class Fetch(wiring.Component):
    """Groups of columns with their differences and the places of their words.

    Stages: read | operands | delta | group. One group a cycle; a group without work that is not
    its product's last one is dropped, also while the output waits. The next product's first group
    follows right after the last one. CLEAR makes groups without work. A last-sent value is written
    `FETCH_LATENCY` cycles after its read; a read that may meet a pending write waits for it.

    Members
    -------
    visits, skipped: events, in one cycle for each group, before the group leaves. CLEAR counts
    nothing.
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
        valid = {name: Signal(name=f"{name}_valid") for name in STAGES}
        tags = {n: Signal(tag_layout(self._config), name=f"{n}_tag", reset_less=True) for n in STAGES}
        fresh = Signal()
        pending = [(valid[name], tags[name]) for name in STAGES[:-1]] + [(fresh, tags["group"])]
        hazard = Cat(
            busy & writes(tag) & (tag.last[:HAZARD_BITS] == cursor.tag.last[:HAZARD_BITS]) for busy, tag in pending
        ).any()
        moves = {}
        start, tag, free = cursor.valid & ~hazard, cursor.tag, Signal(name="read_free")
        m.d.comb += cursor.enable.eq(start & free)
        for name in STAGES:
            leaves = Signal(name=f"{name}_leaves")
            m.d.comb += free.eq(~valid[name] | leaves)
            moves[name] = start & free
            with m.If(free):
                m.d.sync += [valid[name].eq(start), tags[name].eq(tag)]
            start, tag, free = valid[name], tags[name], leaves
        m.d.sync += fresh.eq(moves["group"])
        self._data(m, cursor, moves, tags, fresh)
        idle = ~self.groups.payload.work.any() & ~self.groups.payload.final
        m.d.comb += [self.groups.valid.eq(valid["group"] & ~idle), leaves.eq(self.groups.ready | idle)]
        return m

    def _data(self, m: Module, cursor: Cursor, moves: dict, tags: dict, fresh: Value) -> None:
        m.submodules.memories = memories = GroupMemories(self._config)
        m.submodules.deltas = deltas = Deltas(self._config)
        m.submodules.offsets = offsets = Offsets(self._config)
        out, tag = self.groups.payload, tags["group"]
        for stage in STEPS:
            m.d.comb += [deltas.move[stage].eq(moves[stage]), offsets.move[stage].eq(moves[stage])]
        m.d.comb += [
            memories.write.eq(self.write),
            memories.read.eq(moves["read"]),
            memories.x_address.eq(cursor.activations),
            memories.s_address.eq(cursor.tag.last),
            memories.words_address.eq(cursor.descriptors),
            memories.keep.enable.eq(fresh & writes(tag)),
            memories.keep.address.eq(tag.last),
            memories.keep.data.eq(deltas.kept),
            deltas.x.eq(memories.x),
            deltas.s.eq(memories.s),
            deltas.mode.eq(tags["read"].mode),
            deltas.threshold.eq(tags["delta"].threshold),
            offsets.words.eq(memories.words),
            out.work.eq(deltas.sent & offsets.present),
            out.delta.eq(deltas.delta),
            out.base.eq(offsets.base),
            out.offsets.eq(offsets.offsets),
            out.counts.eq(offsets.counts),
            out.final.eq(tag.final),
        ]
        with m.If(fresh & (tag.mode != Mode.CLEAR)):
            m.d.comb += [
                self.visits.eq(ones(deltas.sent) + ones(deltas.wide)),
                self.skipped.eq(self._config.group - ones(deltas.sent)),
            ]
