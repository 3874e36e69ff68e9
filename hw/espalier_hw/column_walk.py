"""From one column to the next: where columns lie that are dealt to the arrays in groups."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config

from .weights import weight_address


class ColumnWalk(Component):
    """The array and the first word of column 0, 1, 2, ..., all `stride` words long.

    A group's columns lie behind each other; the next group is the next array's, at the same word,
    and after the last array array 0's behind its group before.

    Members
    -------
    restart: strobe: the next cycle shows column 0, at `address`; stronger than `advance`.
    advance: strobe: the next cycle shows the next column.
    column: its number within the group. last: it is the group's last one.
    """

    def __init__(self, config: Config):
        self._arrays = config.arrays
        super().__init__(
            {
                "restart": In(1),
                "address": In(weight_address(config)),
                "advance": In(1),
                "stride": In(weight_address(config)),
                "array": Out(range(max(config.arrays, 2))),
                "word": Out(weight_address(config)),
                "column": Out(range(config.group)),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        group = Signal.like(self.word)
        following = Signal.like(self.word)
        m.d.comb += [following.eq(self.word + self.stride), self.last.eq(self.column.all())]
        with m.If(self.restart):
            m.d.sync += [word.eq(self.address) for word in (self.word, group)]
            m.d.sync += [self.array.eq(0), self.column.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += [self.column.eq(self.column + 1), self.word.eq(following)]
            with m.If(self.last):
                m.d.sync += [self.array.eq(self.array + 1), self.word.eq(group)]
                with m.If(self.array == self._arrays - 1):
                    m.d.sync += self.array.eq(0)
                    m.d.sync += [word.eq(following) for word in (self.word, group)]
        return m
