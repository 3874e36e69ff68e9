"""Loader items on their way into the vector unit's memories."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream

from espalier.spec.memory import Memory

from .datapath import data_output, data_register
from .vector_delay import Timeline
from .vector_lane import RESULT_CYCLE
from .vector_memory import ChunkMemory


def take_items(
    m: Module,
    items: stream.Interface,
    timeline: Timeline,
    drain_latency: int,
    scalar: data.View,
    first_scalar: int,
) -> data.View:
    """The item register; its write follows in the next cycle, which is kept free of chunks. An item
    of sums passes the lanes instead, in a place of its own.

    A scalar (`valid` with a `SCALAR_WRITE`) goes first: it becomes an item of parameters for
    `all_parts`.
    """
    item = Signal(data.StructLayout({"valid": 1, "all_parts": 1, "payload": items.payload.shape()}))
    payload, valid = data_output(m, item.payload, "item_payload"), Signal(name="item_valid")
    all_parts = data_register(1, "item_for_all_parts")
    m.d.comb += [item.valid.eq(valid), item.all_parts.eq(all_parts)]
    memory, cycle = items.payload.memory, drain_latency - 2
    blocked = Signal()
    with m.If(memory == Memory.VECTOR):
        m.d.comb += blocked.eq(timeline.valid(cycle + RESULT_CYCLE))
    with m.Elif(memory == Memory.SUMS):
        # a chunk may have two planes
        m.d.comb += blocked.eq(timeline.valid(cycle) | timeline.valid(cycle + 1))
    m.d.comb += items.ready.eq(~blocked & ~scalar.valid)
    m.d.sync += [
        valid.eq((items.valid & ~blocked) | scalar.valid),
        all_parts.eq(scalar.valid),
        payload.eq(items.payload),
    ]
    with m.If(scalar.valid):
        m.d.sync += [
            payload.memory.eq(Memory.PARAMETERS),
            payload.address.eq(first_scalar + scalar.write.scalar),
            payload.data.eq(scalar.write.scale),
        ]
    return item


def write_port(
    m: Module,
    memory: ChunkMemory,
    kind: Memory,
    writes: Value,
    address: Value,
    item: data.View,
    cycles: int = 0,
) -> None:
    """Registers of a write port: a whole chunk, or the part of the item of `cycles` ago, in a cycle
    without a chunk."""
    parts = len(memory.write_enable)
    part = item.payload.part[: (parts - 1).bit_length()]
    loads, at = item.valid & (item.payload.memory == kind), item.payload.address[: len(address)]
    for _ in range(cycles):
        later, later_loads = data_register(len(part) + len(at), "item_place"), Signal()
        m.d.sync += [later.eq(Cat(part, at)), later_loads.eq(loads)]
        part, at, loads = later[: len(part)], later[len(part) :], later_loads
    m.d.sync += memory.write_enable.eq(writes.replicate(parts))
    m.d.sync += memory.write_address.eq(address)
    with m.If(loads):
        m.d.sync += memory.write_enable.eq(1 << part)
        m.d.sync += memory.write_address.eq(at)
