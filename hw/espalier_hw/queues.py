"""Queues between streams."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import fifo, stream
from amaranth.lib.wiring import Component, In, Out

from .datapath import data_output


class Queue(Component):
    """First in, first out: up to `depth` words between two streams.

    A word can leave the cycle after it came in (`block`: three cycles after); throughput is one
    word a cycle. Few words live in distributed memory; `block` puts them into block memory with a
    register behind it, which holds one word more, because that memory is slow to answer.
    """

    def __init__(self, shape, depth: int, *, block: bool = False):
        self._depth = depth
        self._block = block
        super().__init__(
            {
                "input": In(stream.Signature(shape)),
                "output": Out(stream.Signature(shape)),
                "level": Out(range(depth + 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        kind = fifo.SyncFIFOBuffered if self._block else fifo.SyncFIFO
        width = Shape.cast(self.input.payload.shape()).width
        m.submodules.words = words = kind(width=width, depth=self._depth)
        m.d.comb += [
            words.w_data.eq(self.input.payload),
            words.w_en.eq(self.input.valid),
            self.input.ready.eq(words.w_rdy),
        ]
        payload = Value.cast(self.output.payload)
        if self._block:
            held = data_output(m, payload, "held")
            free = ~self.output.valid | self.output.ready
            m.d.comb += [words.r_en.eq(free), self.level.eq(words.r_level + self.output.valid)]
            with m.If(free):
                m.d.sync += [held.eq(words.r_data), self.output.valid.eq(words.r_rdy)]
        else:
            m.d.comb += [
                payload.eq(words.r_data),
                self.output.valid.eq(words.r_rdy),
                words.r_en.eq(self.output.ready),
                self.level.eq(words.r_level),
            ]
        return m
