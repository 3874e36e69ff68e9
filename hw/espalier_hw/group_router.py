"""Column groups and descriptors on their way to the arrays."""

from __future__ import annotations

from math import gcd

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import Config
from espalier.spec.memory import Memory

from .group_memories import group_write
from .interfaces import ColumnWrite, items


class GroupRouter(wiring.Component):
    """Loader items and the vector unit's chunks to the arrays that they belong to, a cycle later.

    The V/G groups of a chunk go to neighbouring arrays, all in one cycle, and are never refused;
    items wait meanwhile. Chunk i of a VECTOR starts at array i·V/G mod A: with A a multiple of V/G
    an array always gets the same group of a chunk, and the groups need no crossbar.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "items": In(items(config)),
            "columns": In(ColumnWrite(config)),
            "writes": Out(data.ArrayLayout(group_write(config), config.arrays)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c, columns = self._config, self.columns
        m.d.comb += self.items.ready.eq(~columns.valid)
        buses = []
        for i in range(c.chunk_groups):
            bus = Signal(8 * 8, name=f"group_{i}", reset_less=True)
            group = columns.data.as_value().word_select(i, 8 * c.group)
            m.d.sync += bus.eq(Mux(columns.valid, group, self.items.payload.data))
            buses.append(bus)
        for a, write in enumerate(self.writes):
            self._route(m, a, write, buses)
        return m

    def _route(self, m: Module, a: int, write: data.View, buses: list[Signal]) -> None:
        c, item, columns = self._config, self.items.payload, self.columns
        mine = self.items.valid & self.items.ready & (item.array == a)
        m.d.sync += [
            write.activations.eq(mine & (item.memory == Memory.ACTIVATIONS)),
            write.descriptors.eq(mine & (item.memory == Memory.DESCRIPTORS)),
            write.address.eq(item.address),
        ]
        starts = range(0, c.arrays, gcd(c.arrays, c.chunk_groups))
        groups = {start: (a - start) % c.arrays for start in starts}
        groups = {start: i for start, i in groups.items() if i < c.chunk_groups}
        which = Signal(range(c.chunk_groups), name=f"which_{a}", reset_less=True)
        for start, i in groups.items():
            with m.If(columns.valid & (columns.array == start)):
                m.d.sync += [
                    which.eq(i),
                    write.activations.eq(1),
                    write.address.eq(columns.address + (start + i >= c.arrays)),
                ]
        only = buses[next(iter(groups.values()))]
        m.d.comb += write.data.eq(only if len(groups) == 1 else Array(buses)[which])
