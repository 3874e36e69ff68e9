"""The loader's channel for weights: LOADs into the weight memory and EXPANDs, beside all else."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import Config
from espalier.spec.isa import MOST_ROW_GROUPS, QUEUE_DEPTH

from .bursts import BURST_BEATS, request_layout
from .expander import Expander
from .interfaces import BEAT_BITS, ITEMS_PER_BEAT, WEIGHTS_COMMAND, WeightWrite
from .quad_unpacker import QuadUnpacker, quad_bits, quad_plan
from .queues import Queue
from .transposer import row_padding
from .unpacker import UNIT_BITS

MOST_REQUESTED = max(BURST_BEATS, MOST_ROW_GROUPS // ITEMS_PER_BEAT)
"""Beats of the longest request: short ones let the other channel's in between."""


class WeightLoader(Component):
    """Executes LOADs of weights and EXPANDs in order: requests ahead, writes as the beats come.

    A LOAD is asked for in requests of up to a burst, one beat a cycle sustained; an EXPAND in one
    for every token. An EXPAND is written when all LOADs before it are done, and the requests after
    its own wait for its end. `completed` pulses once for each, two cycles after its last beat or
    one after its last write.

    Members
    -------
    commands, completed: as for every unit. requests: to the burst planner.
    room: `MOST_REQUESTED` beats may be asked for. beats: the data. weights: the writes.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "commands": In(stream.Signature(WEIGHTS_COMMAND)),
                "completed": Out(1),
                "requests": Out(stream.Signature(request_layout(UNIT_BITS))),
                "room": In(1),
                "beats": In(stream.Signature(BEAT_BITS)),
                "weights": Out(WeightWrite(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(WEIGHTS_COMMAND, QUEUE_DEPTH)
        m.submodules.plans = plans = Queue(quad_plan(self._config), QUEUE_DEPTH)
        m.submodules.unpacker = unpacker = QuadUnpacker(self._config)
        m.submodules.expander = expander = Expander(self._config)
        connect(m, flipped(self.commands), queue.input)
        connect(m, plans.output, unpacker.plans)
        connect(m, unpacker.weights, expander.loaded)
        connect(m, expander.weights, flipped(self.weights))
        expanded = Signal()
        m.d.sync += expanded.eq(expander.commands.valid & expander.commands.ready)
        m.d.comb += [
            unpacker.beats.payload.eq(self.beats.payload),
            expander.beats.payload.eq(self.beats.payload),
            unpacker.beats.valid.eq(self.beats.valid),  # takes none but those of its plans
            expander.beats.valid.eq(self.beats.valid & expander.commands.valid),
            self.beats.ready.eq(
                unpacker.beats.ready | (expander.beats.ready & expander.commands.valid)
            ),
            self.completed.eq(unpacker.completed | expanded),
        ]
        self._request(m, queue.output, plans.input, expander, unpacker.idle)
        return m

    def _request(self, m, commands, plans, expander, unpacked):
        """A LOAD is a run of beats for every array, an EXPAND one for every token."""
        command, request = commands.payload, self.requests.payload
        config = self._config
        piece = BURST_BEATS * config.quads_per_beat
        units, left = Signal(quad_bits(config)), Signal(quad_bits(config))
        runs = Signal.like(command.most)
        run_end = command.expand | (left <= piece)
        m.d.comb += [
            request.ddr.eq(command.ddr),
            request.units.eq(Mux(left <= piece, left, piece)),
            request.packing.eq(config.quads_per_beat),
            plans.payload.address.eq(command.address),
            plans.payload.units.eq(units),
            expander.commands.payload.eq(command),
            expander.last_group.eq(units),
        ]
        with m.If(command.expand):
            # `units` is the number of a row's last group; the row goes on to its chunk's end
            m.d.comb += [
                request.units.eq(units | row_padding(config)),
                request.packing.eq(ITEMS_PER_BEAT),
                request.gap.eq(command.gap),
            ]
        with m.FSM():
            with m.State("COUNT"):
                m.d.sync += [
                    units.eq(command.count * (config.lanes // 4)),
                    runs.eq(config.arrays),
                    request.follow.eq(0),
                ]
                with m.If(command.expand):
                    m.d.sync += [units.eq(MOST_ROW_GROUPS - 1), runs.eq(command.heads)]
                with m.If(commands.valid):
                    m.next = "PLAN"
                    with m.If(command.expand):
                        m.next = "ROW"
            with m.State("PLAN"):
                m.d.comb += plans.valid.eq(1)
                m.d.sync += left.eq(units)
                with m.If(plans.ready):
                    m.next = "REQUEST"
            with m.State("ROW"):
                last_group = (units + command.groups)[: len(expander.last_group)]
                m.d.sync += [units.eq(last_group), runs.eq(runs - 1)]
                with m.If(runs == 1):
                    m.d.sync += runs.eq(command.count)
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [
                    self.requests.valid.eq(self.room),
                    expander.commands.valid.eq(command.expand & unpacked),
                ]
                with m.If(self.requests.valid & self.requests.ready):
                    m.d.sync += [left.eq(left - piece), request.follow.eq(1)]
                    with m.If(run_end):
                        m.d.sync += [left.eq(units), runs.eq(runs - 1)]
                    with m.If(run_end & (runs == 1)):
                        m.next = "EXPAND"
                        with m.If(~command.expand):
                            m.d.comb += commands.ready.eq(1)
                            m.next = "COUNT"
            with m.State("EXPAND"):
                m.d.comb += [
                    expander.commands.valid.eq(unpacked),
                    commands.ready.eq(expander.commands.ready),
                ]
                with m.If(commands.ready):
                    m.next = "COUNT"
