"""Loader items on their way into the vector unit's memories."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream

from espalier.spec.memory import Memory

from .datapath import data_output
from .vector_delay import Timeline
from .vector_lane import RESULT_CYCLE, TOTAL_CYCLE
from .vector_memory import ChunkMemory


def take_items(
    m: Module, items: stream.Interface, timeline: Timeline, drain_latency: int
) -> data.View:
    """The item register; its write follows in the next cycle, which is kept free of chunks."""
    item = Signal(data.StructLayout({"valid": 1, "payload": items.payload.shape()}))
    payload, valid = data_output(m, item.payload, "item_payload"), Signal(name="item_valid")
    m.d.comb += item.valid.eq(valid)
    memory, cycle = items.payload.memory, drain_latency - 2
    blocked = Signal()
    with m.If(memory == Memory.VECTOR):
        m.d.comb += blocked.eq(timeline.valid(cycle + RESULT_CYCLE))
    with m.Elif(memory == Memory.SUMS):
        m.d.comb += blocked.eq(timeline.valid(cycle + TOTAL_CYCLE))
    m.d.comb += items.ready.eq(~blocked)
    m.d.sync += [
        valid.eq(items.valid & ~blocked),
        payload.eq(items.payload),
    ]
    return item


def write_port(
    m: Module, memory: ChunkMemory, kind: Memory, writes: Value, address: Value, item: data.View
) -> None:
    """Registers of a write port: a whole chunk, or an item's part in a cycle without one."""
    loads = Signal(name=f"loads_{kind.name.lower()}")
    parts = len(memory.write_enable)
    m.d.comb += loads.eq(item.valid & (item.payload.memory == kind))
    m.d.sync += memory.write_enable.eq(writes.replicate(parts))
    m.d.sync += memory.write_address.eq(address)
    with m.If(loads):
        m.d.sync += memory.write_enable.eq(1 << item.payload.part[: (parts - 1).bit_length()])
        m.d.sync += memory.write_address.eq(item.payload.address)
