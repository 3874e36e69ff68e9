"""DDR beats to weight words: what a LOAD of weights writes."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config
from espalier.spec.memory import QUAD_BITS

from .interfaces import BEAT_BITS, WeightWrite


def quad_bits(config: Config) -> int:
    """Width of the number of quads that a LOAD brings to one array, at most its memory's."""
    return (config.weight_depth * (config.lanes // 4)).bit_length()


def quad_plan(config: Config) -> data.StructLayout:
    """A LOAD of weights: `units` quads for each array, from word `address` on."""
    return data.StructLayout({"address": 16, "units": quad_bits(config)})


class QuadUnpacker(Component):
    """Turns beats into writes of up to three quads, one beat a cycle, in its cycle; each array's
    begin on a beat of their own.

    `completed` pulses two cycles after the last beat.

    Members
    -------
    plans: LOADs, one at a time. beats: their data in order; none but those are taken.
    weights: the writes. idle: no LOAD is under way or waits.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "plans": In(stream.Signature(quad_plan(config))),
                "beats": In(stream.Signature(BEAT_BITS)),
                "weights": Out(WeightWrite(config)),
                "completed": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, weights = self._config, self.weights
        per_beat, quads = config.quads_per_beat, config.lanes // 4
        plan = Signal(quad_plan(config))
        left = Signal.like(plan.units)
        running, finishing = Signal(), Signal()
        taken, reached = Signal(2), Signal(range(quads + 3))
        array_end, step = left <= per_beat, Signal()
        m.d.comb += [
            self.plans.ready.eq(~running & ~finishing),
            self.idle.eq(self.plans.ready & ~self.plans.valid),
            self.beats.ready.eq(running),
            step.eq(running & self.beats.valid),
            taken.eq(Mux(array_end, left, per_beat)),
            reached.eq(weights.first + taken),
            weights.valid.eq(step),
            weights.count.eq(taken),
            Value.cast(weights.quads).eq(self.beats.payload[: per_beat * QUAD_BITS]),
        ]
        m.d.sync += [self.completed.eq(finishing), finishing.eq(0)]
        with m.If(self.plans.valid & self.plans.ready):
            m.d.sync += [
                plan.eq(self.plans.payload),
                left.eq(self.plans.payload.units),
                weights.address.eq(self.plans.payload.address),
                weights.first.eq(0),
                weights.array.eq(0),
                running.eq(1),
            ]
        with m.If(step):
            m.d.sync += [left.eq(left - taken), weights.first.eq(reached)]
            with m.If(reached >= quads):
                m.d.sync += [
                    weights.first.eq(reached - quads),
                    weights.address.eq(weights.address + 1),
                ]
            with m.If(array_end):
                m.d.sync += [
                    left.eq(plan.units),
                    weights.address.eq(plan.address),
                    weights.first.eq(0),
                    weights.array.eq(weights.array + 1),
                ]
                with m.If(weights.array == config.arrays - 1):
                    m.d.sync += [running.eq(0), finishing.eq(1)]
        return m
