"""Chunks to DDR beats: the store unit's first half."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config
from espalier.spec.isa import Store

from .interfaces import BEAT_BITS, KIND_BITS, stored_chunk

HALF_BITS = BEAT_BITS // 2
"""Chunks are packed in halves of a beat: 4 values, 2 sums or a group of column inputs."""
KINDS = (Store.VALUES, Store.SUMS, Store.COLUMNS)
RUN = data.StructLayout({"chunks": 9, "kind": KIND_BITS})
"""One run: `chunks` of a kind that start on a new beat and end with a padded one."""


def halves(config: Config, kind: Store) -> int:
    """Halves of a beat that one chunk fills."""
    per_half = {Store.VALUES: 4, Store.SUMS: 2, Store.COLUMNS: config.group}[kind]
    return config.vector_lanes // per_half


def by_kind(kind: Value, values: Mapping[Store, Value | int]) -> Value:
    """The value that belongs to a `kind`; never asked for Store.NONE."""
    wide = Mux(kind == Store.SUMS, values[Store.SUMS], values[Store.VALUES])
    return Mux(kind == Store.COLUMNS, values[Store.COLUMNS], wide)


class Packer(Component):
    """Packs chunks into beats, element 0 lowest, the last beat of a run padded with zeros.

    One beat a cycle, as far as chunks are there. With an even number of groups in a chunk every
    chunk is whole beats; otherwise half a beat may wait for the next chunk.
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
        if self._config.chunk_groups % 2 == 0:
            self._whole_beats(m, run, available, words, step, finish)
        else:
            self._half_beats(m, run, available, words, step, finish)
        return m

    def _whole_beats(self, m, run, available, words, step, finish):
        beats = Array(Cat(*pair) for pair in zip(words[0::2], words[1::2], strict=True))
        position = Signal(range(len(beats)))
        last = {kind: halves(self._config, kind) // 2 - 1 for kind in KINDS}
        m.d.comb += [
            self.beats.payload.eq(beats[position]),
            self.beats.valid.eq(available),
            step.eq(available & self.beats.ready),
            finish.eq(position == by_kind(run.kind, last)),
        ]
        with m.If(step):
            m.d.sync += position.eq(Mux(finish, 0, position + 1))

    def _half_beats(self, m, run, available, words, step, finish):
        """`held` is the half beat left over from the chunk before; `keep` puts one there."""
        words = Array([*words, Const(0, HALF_BITS)])
        position = Signal(range(len(words)))
        held, holding, keep = Signal(HALF_BITS), Signal(), Signal()
        size = by_kind(run.kind, {kind: halves(self._config, kind) for kind in KINDS})
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
