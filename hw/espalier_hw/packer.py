"""Chunks to DDR beats: the store unit's first half."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config

from .interfaces import BEAT_BITS, stored_chunk

HALF_BITS = BEAT_BITS // 2
"""Chunks are packed in halves of a beat: 4 values or 2 sums."""
RUN = data.StructLayout({"chunks": 9, "wide": 1})
"""One run: `chunks` that start on a new beat and end with a padded one; `wide` for sums."""


def halves(config: Config, wide: int) -> int:
    """Halves of a beat that one chunk fills."""
    return config.vector_lanes // (2 if wide else 4)


class Packer(Component):
    """Packs chunks into beats, element 0 lowest, the last beat of a run padded with zeros.

    One beat a cycle, as far as chunks are there. With vector_lanes a multiple of 8 every chunk is
    whole beats; otherwise half a beat of values may wait for the next chunk.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "runs": In(stream.Signature(RUN)),
                "chunks": In(stream.Signature(stored_chunk(config))),
                "beats": Out(stream.Signature(BEAT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run = Signal(RUN)
        step, finish = Signal(), Signal()
        m.d.comb += self.runs.ready.eq(run.chunks == 0)
        with m.If(self.runs.valid & self.runs.ready):
            m.d.sync += run.eq(self.runs.payload)
        with m.If(step & finish):
            m.d.sync += run.chunks.eq(run.chunks - 1)
        m.d.comb += self.chunks.ready.eq(step & finish)
        available = self.chunks.valid & ~self.runs.ready
        words = self.chunks.payload.data
        words = [words[i : i + HALF_BITS] for i in range(0, len(words), HALF_BITS)]
        if self._config.vector_lanes % 8 == 0:
            self._whole_beats(m, run, available, words, step, finish)
        else:
            self._half_beats(m, run, available, words, step, finish)
        return m

    def _whole_beats(self, m, run, available, words, step, finish):
        beats = Array(Cat(*pair) for pair in zip(words[0::2], words[1::2], strict=True))
        position = Signal(range(len(beats)))
        last = [halves(self._config, wide) // 2 - 1 for wide in (0, 1)]
        m.d.comb += [
            self.beats.payload.eq(beats[position]),
            self.beats.valid.eq(available),
            step.eq(available & self.beats.ready),
            finish.eq(position == Mux(run.wide, last[1], last[0])),
        ]
        with m.If(step):
            m.d.sync += position.eq(Mux(finish, 0, position + 1))

    def _half_beats(self, m, run, available, words, step, finish):
        """`held` is the half beat left over from the chunk before; `keep` puts one there."""
        words = Array([*words, Const(0, HALF_BITS)])
        position = Signal(range(len(words)))
        held, holding, keep = Signal(HALF_BITS), Signal(), Signal()
        size = Mux(run.wide, halves(self._config, 1), halves(self._config, 0))
        rest = size - position
        low, high = words[position], Mux(rest == 1, 0, words[position + 1])
        m.d.comb += [
            keep.eq(available & (rest == 1) & ~holding & (run.chunks != 1)),
            self.beats.payload.eq(Mux(holding, Cat(held, low), Cat(low, high))),
            self.beats.valid.eq(available & ~keep),
            step.eq(keep | (self.beats.valid & self.beats.ready)),
            finish.eq(Mux(holding, rest == 1, rest <= 2)),
        ]
        with m.If(step):
            m.d.sync += [
                position.eq(Mux(finish, 0, position + Mux(holding, 1, 2))),
                holding.eq(keep),
            ]
        with m.If(keep):
            m.d.sync += held.eq(low)
