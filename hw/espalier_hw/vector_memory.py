"""The vector unit's memories: block RAMs of one write and one read port, copied for more reads."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from espalier.spec.config import Config
from espalier.spec.numerics import TABLE_SEGMENTS

from .vector_value import ENTRY_LAYOUT, SEGMENT_BITS


def _address(depth: int) -> Shape:
    return Shape.cast(range(max(depth, 2)))


class ChunkMemory(wiring.Component):
    """One chunk an address, in parts that are written separately (a loader item fills one part).

    Data comes one cycle after the address, from the block RAM's own register: register it once
    more. A read of the address that is being written gives the old data.

    Parameters
    ----------
    depth: chunks. parts: parts of a chunk. part_bits: bits of a part. reads: read ports, each a
        copy of the memory.
    """

    def __init__(self, *, depth: int, parts: int, part_bits: int, reads: int = 1):
        self._depth, self._part_bits, self._reads = depth, part_bits, reads
        chunk = data.ArrayLayout(part_bits, parts)
        super().__init__(
            {
                "write_enable": In(parts),
                "write_address": In(_address(depth)),
                "write_data": In(chunk),
                **{f"read_address{r}": In(_address(depth)) for r in range(reads)},
                **{f"read_data{r}": Out(chunk) for r in range(reads)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for part in range(len(self.write_enable)):
            for r in range(self._reads):
                memory = Memory(shape=self._part_bits, depth=self._depth, init=[])
                m.submodules[f"part_{part}_copy_{r}"] = memory
                write, read = memory.write_port(), memory.read_port()
                m.d.comb += [
                    write.en.eq(self.write_enable[part]),
                    write.addr.eq(self.write_address),
                    write.data.eq(self.write_data[part]),
                    read.addr.eq(getattr(self, f"read_address{r}")),
                    getattr(self, f"read_data{r}")[part].eq(read.data),
                ]
        return m


class TableMemory(wiring.Component):
    """The piecewise-linear tables, one copy a lane: each looks up its own segment of one table.

    The entry comes one cycle after the segment.
    """

    def __init__(self, config: Config):
        self._depth = config.tables * TABLE_SEGMENTS
        lanes = config.vector_lanes
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(_address(self._depth)),
                "write_data": In(ENTRY_LAYOUT),
                "table": In(_address(config.tables)),
                "segments": In(data.ArrayLayout(SEGMENT_BITS, lanes)),
                "entries": Out(data.ArrayLayout(ENTRY_LAYOUT, lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for lane in range(len(self.segments)):
            memory = Memory(shape=ENTRY_LAYOUT.size, depth=self._depth, init=[])
            m.submodules[f"lane_{lane}"] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(self.write_enable),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
                read.addr.eq(Cat(self.segments[lane], self.table)),
                self.entries[lane].eq(ENTRY_LAYOUT(read.data)),
            ]
        return m
