"""The loader: DDR to the on-chip memories, the read half of the AXI4 port."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

from espalier.spec.config import Config
from espalier.spec.isa import QUEUE_DEPTH
from espalier.spec.memory import Memory
from espalier.spec.registers import Fault

from .bursts import BURST_BEATS, IN_FLIGHT, BurstPlanner, FaultReport
from .interfaces import (
    ADDRESS_BITS,
    BEAT_BITS,
    ITEMS_PER_BEAT,
    LOAD_COMMAND,
    WEIGHTS_COMMAND,
    Axi4,
    ProgramWrite,
    WeightWrite,
    items,
)
from .queues import Queue
from .unpacker import UNIT_BITS, UNPACK_PLAN, Unpacker
from .weight_loader import MOST_REQUESTED, WeightLoader

BUFFER_BEATS = 2 * BURST_BEATS
"""Beats of items and instructions that can be asked for before they are used."""
WEIGHT_BEATS = 8 * BURST_BEATS
"""The same of weights."""
BEAT_SIZE = 4
"""AXI's code for 16 bytes."""
INCREMENTING = 1
FLIGHT = data.StructLayout({"offset": ADDRESS_BITS, "second": 1})


class ReadPort(Signature):
    """The read half of `Axi4`."""

    def __init__(self) -> None:
        members = Axi4().members
        super().__init__(
            {name: member for name, member in members.items() if name.startswith(("ar", "r"))}
        )


class Loader(Component):
    """Executes LOADs in order and, in a second channel beside them, those of weights and EXPANDs.

    The channels share the port burst by burst; a LOAD of items or instructions goes first. A burst
    is asked for only when its channel's buffer has room for all of it, so read data are never
    refused; up to `IN_FLIGHT` bursts hide the memory's latency, over the borders of LOADs too.
    Sustained: one beat a cycle for weights, half a beat a cycle for items. `completed` pulses the
    cycle after a LOAD's last write has been taken by the memory.

    A burst outside the window, or answered by an error, raises `fault`, which stays until reset.
    While `stop` is 1 no further burst is issued and arriving data are thrown away; `idle` says
    that no burst is in flight.

    Members
    -------
    bus: read half of the AXI4 port. commands, weight_commands, completed, weights_completed: in,
    one pulse each when done.
    weights, items, program: the writes. read_beat: event, one beat came in.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "bus": Out(ReadPort()),
                "commands": In(stream.Signature(LOAD_COMMAND)),
                "completed": Out(1),
                "weight_commands": In(stream.Signature(WEIGHTS_COMMAND)),
                "weights_completed": Out(1),
                "weights": Out(WeightWrite(config)),
                "items": Out(items(config)),
                "program": Out(ProgramWrite()),
                "window_base": In(ADDRESS_BITS),
                "window_size": In(ADDRESS_BITS),
                "fault": Out(FaultReport()),
                "stop": In(1),
                "idle": Out(1),
                "read_beat": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        packings = (1, ITEMS_PER_BEAT, self._config.quads_per_beat)
        m.submodules.queue = queue = Queue(LOAD_COMMAND, QUEUE_DEPTH)
        m.submodules.planner = planner = BurstPlanner(UNIT_BITS, packings)
        m.submodules.plans = plans = Queue(UNPACK_PLAN, QUEUE_DEPTH)
        m.submodules.buffer = buffer = Queue(BEAT_BITS, BUFFER_BEATS)
        m.submodules.unpacker = unpacker = Unpacker(self._config)
        m.submodules.weight_buffer = weight_buffer = Queue(BEAT_BITS, WEIGHT_BEATS, block=True)
        m.submodules.weight_loader = weight_loader = WeightLoader(self._config)
        connect(m, flipped(self.commands), queue.input)
        connect(m, flipped(self.weight_commands), weight_loader.commands)
        connect(m, plans.output, unpacker.plans)
        connect(m, buffer.output, unpacker.beats)
        connect(m, weight_buffer.output, weight_loader.beats)
        connect(m, unpacker.items, flipped(self.items))
        connect(m, unpacker.program, flipped(self.program))
        connect(m, weight_loader.weights, flipped(self.weights))
        m.d.comb += [
            planner.window_base.eq(self.window_base),
            planner.window_size.eq(self.window_size),
            self.completed.eq(unpacker.completed),
            self.weights_completed.eq(weight_loader.completed),
        ]
        room = Signal()
        self._request(m, queue.output, plans.input, room, planner.requests, weight_loader.requests)
        self._read(m, planner, (buffer, weight_buffer), (room, weight_loader.room))
        return m

    def _request(self, m, commands, plans, room, requests, seconds):
        """One LOAD becomes one plan for the unpacker and one run of beats, or one run per array,
        asked for in pieces of a burst. Whenever there is no room for one, a request for weights
        gets through."""
        command, request = commands.payload, requests.payload
        left = Signal.like(command.count)
        runs = Signal(range(self._config.arrays + 1))
        follow, asking = Signal(), Signal()
        packing = Mux(command.memory == Memory.PROGRAM, 1, ITEMS_PER_BEAT)
        piece = Signal(range(BURST_BEATS * ITEMS_PER_BEAT + 1))
        m.d.comb += [
            plans.payload.memory.eq(command.memory),
            plans.payload.address.eq(command.address),
            plans.payload.units.eq(command.count),
            piece.eq(packing * BURST_BEATS),
            request.eq(seconds.payload),
            request.second.eq(1),
            requests.valid.eq(asking | seconds.valid),
            seconds.ready.eq(requests.ready & ~asking),
        ]
        run_end = left <= piece
        with m.If(asking):
            m.d.comb += [
                request.second.eq(0),
                request.follow.eq(follow),
                request.gap.eq(0),
                request.ddr.eq(command.ddr),
                request.units.eq(Mux(run_end, left, piece)),
                request.packing.eq(packing),
            ]
        with m.FSM():
            with m.State("PLAN"):
                m.d.sync += [left.eq(command.count), runs.eq(1), follow.eq(0)]
                with m.If(command.memory == Memory.DESCRIPTORS):
                    m.d.sync += runs.eq(self._config.arrays)
                m.d.comb += plans.valid.eq(commands.valid)
                with m.If(commands.valid & plans.ready):
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += asking.eq(room)
                with m.If(asking & requests.ready):
                    m.d.sync += [left.eq(left - piece), follow.eq(1)]
                    with m.If(run_end):
                        m.d.sync += [left.eq(command.count), runs.eq(runs - 1)]
                    with m.If(run_end & (runs == 1)):
                        m.d.comb += commands.ready.eq(1)
                        m.next = "PLAN"

    def _read(self, m, planner, buffers, rooms):
        """Address and data channels, and faults. A request is made when the buffer has room for
        all its beats: so all its bursts may be issued."""
        bus, burst = self.bus, planner.bursts
        m.submodules.flying = flying = Queue(FLIGHT, IN_FLIGHT)
        first, second = buffers
        issue = Signal()
        for channel, (buffer, size, most) in enumerate(
            ((first, BUFFER_BEATS, BURST_BEATS), (second, WEIGHT_BEATS, MOST_REQUESTED))
        ):
            promised = Signal(range(size + 1), name=f"promised_{channel}")
            asked = Mux(issue & (burst.payload.second == channel), burst.payload.beats, 0)
            used = buffer.output.valid & buffer.output.ready
            m.d.sync += promised.eq(promised + asked - used)
            m.d.comb += rooms[channel].eq(promised <= size - most)
        arriving = flying.output.payload.second
        m.d.comb += [
            issue.eq(burst.valid & ~bus.arvalid & flying.input.ready & ~self.stop),
            burst.ready.eq(issue),
            flying.input.valid.eq(issue),
            flying.input.payload.offset.eq(burst.payload.offset),
            flying.input.payload.second.eq(burst.payload.second),
            bus.arsize.eq(BEAT_SIZE),
            bus.arburst.eq(INCREMENTING),
            first.input.payload.eq(bus.rdata),
            second.input.payload.eq(bus.rdata),
            first.input.valid.eq(bus.rvalid & ~self.stop & ~arriving),
            second.input.valid.eq(bus.rvalid & ~self.stop & arriving),
            bus.rready.eq(Mux(arriving, second.input.ready, first.input.ready) | self.stop),
            self.read_beat.eq(bus.rvalid & bus.rready),
            flying.output.ready.eq(self.read_beat & bus.rlast),
            self.idle.eq(~flying.output.valid),
        ]
        with m.If(issue):
            m.d.sync += [
                bus.arvalid.eq(1),
                bus.araddr.eq(burst.payload.address),
                bus.arlen.eq(burst.payload.beats - 1),
            ]
        with m.Elif(bus.arready):
            m.d.sync += bus.arvalid.eq(0)
        with m.If(~self.fault.valid):
            m.d.sync += Cat(self.fault.valid, self.fault.cause, self.fault.address).eq(
                Cat(planner.fault.valid, planner.fault.cause, planner.fault.address)
            )
            with m.If(self.read_beat & bus.rresp[1]):
                m.d.sync += [
                    self.fault.valid.eq(1),
                    self.fault.cause.eq(Fault.BUS_ERROR),
                    self.fault.address.eq(flying.output.payload.offset),
                ]
