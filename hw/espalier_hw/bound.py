"""How much of a VECTOR counts when a register bounds it."""

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out

from .interfaces import TAIL_BITS


class Bound(Component):
    """Resolves elements = clamp(value, 1, count·V) into `chunks` = ceil(elements / V) and `tail`,
    the number of elements in the last chunk less one.

    Without `bounded` all count, at once; with it the answer is that to the last cycle's `value` and
    `count`.

    Parameters
    ----------
    vector_lanes: V, a power of two.

    Raises
    ------
    ValueError: when the tail of a chunk of V does not fit a command.
    """

    def __init__(self, vector_lanes: int):
        if vector_lanes > 1 << TAIL_BITS:
            raise ValueError(f"vector_lanes must be at most {1 << TAIL_BITS}, not {vector_lanes}")
        self._tail_bits = (vector_lanes - 1).bit_length()
        super().__init__(
            {
                "bounded": In(1),
                "count": In(9),
                "value": In(32),
                "chunks": Out(9),
                "tail": Out(TAIL_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        whole, rest = self.value[self._tail_bits :], self.value[: self._tail_bits]
        none, all_count = Signal(), Signal()
        chunks, tail = Signal.like(self.chunks), Signal(self._tail_bits)
        m.d.sync += [
            none.eq(self.value == 0),
            all_count.eq(whole >= self.count),
            chunks.eq(whole[: len(chunks)] + rest.any()),
            tail.eq(rest - 1),
        ]
        m.d.comb += [
            self.chunks.eq(Mux(none, 1, chunks)),
            self.tail.eq(Mux(none, 0, tail)),
        ]
        with m.If(all_count | ~self.bounded):
            m.d.comb += [
                self.chunks.eq(self.count),
                self.tail.eq((1 << self._tail_bits) - 1),
            ]
        return m
