"""Chunks to DDR beats: the store unit's first half."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config

from .interfaces import BEAT_BITS, stored_chunk

HALF_BITS = BEAT_BITS // 2
"""Chunks are packed in halves of a beat: 4 values or 2 sums."""
PACK = data.StructLayout({"chunks": 9, "wide": 1})
"""One run: `chunks` that start on a new beat and end with a padded one; `wide` for sums."""


def halves(config: Config, wide: int) -> int:
    """Halves of a beat that one chunk fills."""
    return config.vector_lanes // (2 if wide else 4)


class Packer(Component):
    """Packs chunks into beats, element 0 lowest, the last beat of a run padded with zeros.

    One beat a cycle, as far as chunks are there. With vector_lanes a multiple of 8 every chunk is whole beats;
    otherwise half a beat of values may wait for the next chunk.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "runs": In(stream.Signature(PACK)),
            "chunks": In(stream.Signature(stored_chunk(config))),
            "beats": Out(stream.Signature(BEAT_BITS)),
        })

    def elaborate(self, platform):
        m = Module()
        chunk = self.chunks.payload
        left = Signal(9)
        wide = Signal()
        position = Signal(range(halves(self._config, wide=1) + 1))
        held = Signal(HALF_BITS)
        holding = Signal()
        size = Mux(wide, halves(self._config, wide=1), halves(self._config, wide=0))
        rest = Signal.like(position)
        last = left == 1
        words = [chunk.data[i : i + HALF_BITS] for i in range(0, len(chunk.data), HALF_BITS)]
        words = Array([*words, Const(0, HALF_BITS)])
        low = Signal(HALF_BITS)
        high = Signal(HALF_BITS)
        keep = Signal()
        finish = Signal()

        m.d.comb += [
            self.runs.ready.eq(left == 0),
            rest.eq(size - position),
            low.eq(words[position]),
            high.eq(Mux(rest == 1, 0, words[position + 1])),
            self.beats.payload.eq(Cat(low, high)),
        ]
        if not self._aligned:
            m.d.comb += keep.eq((rest == 1) & ~holding & ~last)
            with m.If(holding):
                m.d.comb += self.beats.payload.eq(Cat(held, low))
        consumed = Mux(holding, 1, 2)
        m.d.comb += [
            self.beats.valid.eq(self.chunks.valid & (left != 0) & ~keep),
            finish.eq(rest <= consumed),
        ]
        step = Signal()
        m.d.comb += step.eq((self.beats.valid & self.beats.ready) | (keep & self.chunks.valid))
        m.d.comb += self.chunks.ready.eq(step & finish)
        with m.If(step):
            m.d.sync += [position.eq(position + consumed), holding.eq(keep)]
            with m.If(keep):
                m.d.sync += held.eq(low)
            with m.If(finish):
                m.d.sync += [position.eq(0), left.eq(left - 1)]
        with m.If(self.runs.valid & self.runs.ready):
            m.d.sync += [left.eq(self.runs.payload.chunks), wide.eq(self.runs.payload.wide)]
        return m

    @property
    def _aligned(self) -> bool:
        return self._config.vector_lanes % 8 == 0
