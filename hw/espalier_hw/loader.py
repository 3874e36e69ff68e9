"""The loader: DDR to the on-chip memories, the read half of the AXI4 port."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

from espalier.spec.config import Config
from espalier.spec.isa import MOST_ROW_GROUPS, QUEUE_DEPTH
from espalier.spec.memory import Memory
from espalier.spec.registers import Fault

from .buffer import Buffer
from .bursts import IN_FLIGHT, BurstPlanner, FaultReport
from .expander import Expander
from .interfaces import (
    ADDRESS_BITS,
    BEAT_BITS,
    ITEMS_PER_BEAT,
    LOAD_COMMAND,
    Axi4,
    ProgramWrite,
    WeightWrite,
    items,
)
from .queues import Queue
from .transposer import row_padding
from .unpacker import PER_ARRAY, Unpacker, unit_bits, unpack_layout

BUFFER_BEATS = 128
"""Beats that can be asked for before they are used: eight whole bursts."""
BEAT_SIZE = 4
"""AXI's code for 16 bytes."""
INCREMENTING = 1


class ReadPort(Signature):
    """The read half of `Axi4`."""

    def __init__(self) -> None:
        members = Axi4().members
        super().__init__(
            {name: member for name, member in members.items() if name.startswith(("ar", "r"))}
        )


class Loader(Component):
    """Executes LOADs and EXPANDs: bursts ahead, beats through a buffer, writes in order.

    A burst is issued only when the buffer has room for all of it, so read data are never refused
    for long; up to `IN_FLIGHT` bursts hide the memory's latency, over the borders of LOADs too.
    Sustained: one beat a cycle for weights and instructions, half a beat a cycle for items. A
    LOAD's `completed` pulses the cycle after its last write has been taken by the memory. An EXPAND
    is written when all LOADs before it are done, and the bursts after its own wait for its end.

    A burst outside the window, or answered by an error, raises `fault`, which stays until reset.
    While `stop` is 1 no further burst is issued and arriving data are thrown away; `idle` says
    that no burst is in flight.

    Members
    -------
    bus: read half of the AXI4 port. commands, completed: in, one pulse each when done.
    weights, items, program: the writes. read_beat: event, one beat came in.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "bus": Out(ReadPort()),
                "commands": In(stream.Signature(LOAD_COMMAND)),
                "completed": Out(1),
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
        m.submodules.planner = planner = BurstPlanner(unit_bits(self._config), packings)
        m.submodules.plans = plans = Queue(unpack_layout(self._config), QUEUE_DEPTH)
        m.submodules.buffer = buffer = Queue(BEAT_BITS, BUFFER_BEATS, block=True)
        m.submodules.unpacker = unpacker = Unpacker(self._config)
        m.submodules.expander = expander = Expander(self._config)
        # block RAM far from where `ready` is made: the way back ends here
        m.submodules.beats = beats = Buffer(BEAT_BITS)
        connect(m, flipped(self.commands), queue.input)
        connect(m, plans.output, unpacker.plans)
        connect(m, buffer.output, beats.input)
        connect(m, unpacker.items, flipped(self.items))
        connect(m, unpacker.program, flipped(self.program))
        m.d.comb += [
            planner.window_base.eq(self.window_base),
            planner.window_size.eq(self.window_size),
        ]
        self._request(m, queue.output, planner.requests, plans.input, expander, unpacker.idle)
        self._write(m, beats.output, unpacker, expander)
        self._read(m, planner, buffer)
        return m

    def _request(self, m, commands, requests, plans, expander, unpacked):
        """One LOAD becomes one plan for the unpacker and one run of beats, or one run per array; an
        EXPAND one run per token, while the expander has it."""
        command = commands.payload
        units = Signal(unit_bits(self._config))
        runs = Signal.like(command.most)
        follow = Signal()
        per_array = Cat(command.memory == memory for memory in PER_ARRAY).any()
        self._payloads(m, command, units, requests.payload, plans.payload, expander)
        m.d.comb += requests.payload.follow.eq(follow)
        with m.FSM():
            with m.State("COUNT"):
                m.d.sync += [units.eq(command.count), runs.eq(1), follow.eq(0)]
                with m.If(command.memory == Memory.WEIGHTS):
                    m.d.sync += units.eq(command.count * (self._config.lanes // 4))
                with m.If(per_array):
                    m.d.sync += runs.eq(self._config.arrays)
                with m.If(command.expand):
                    m.d.sync += [units.eq(MOST_ROW_GROUPS - 1), runs.eq(command.heads)]
                with m.If(commands.valid):
                    m.next = "PLAN"
                    with m.If(command.expand):
                        m.next = "ROW"
            with m.State("PLAN"):
                m.d.comb += plans.valid.eq(1)
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
                    requests.valid.eq(1),
                    expander.commands.valid.eq(command.expand & unpacked),
                ]
                with m.If(requests.ready):
                    m.d.sync += [runs.eq(runs - 1), follow.eq(1)]
                    with m.If(runs == 1):
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

    def _payloads(self, m, command, units, request, plan, expander):
        """What planner, unpacker and expander are told. `units` of an EXPAND is the number of a
        row's last group; behind it the row goes on to the end of its chunk."""
        m.d.comb += [
            request.ddr.eq(command.ddr),
            request.units.eq(units),
            request.packing.eq(ITEMS_PER_BEAT),
            plan.memory.eq(command.memory),
            plan.address.eq(command.address),
            plan.units.eq(units),
            expander.commands.payload.eq(command),
            expander.last_group.eq(units),
        ]
        with m.If(command.expand):
            m.d.comb += request.units.eq(units | row_padding(self._config))
            m.d.comb += request.gap.eq(command.gap)
        with m.Else():
            with m.Switch(command.memory):
                with m.Case(Memory.WEIGHTS):
                    m.d.comb += request.packing.eq(self._config.quads_per_beat)
                with m.Case(Memory.PROGRAM):
                    m.d.comb += request.packing.eq(1)

    def _write(self, m, beats, unpacker, expander):
        """Beats go to the one that is at work; its weights, through one register, to the engine."""
        connect(m, unpacker.weights, expander.loaded)
        connect(m, expander.weights, flipped(self.weights))
        expanded = Signal()
        m.d.comb += [
            unpacker.beats.payload.eq(beats.payload),
            expander.beats.payload.eq(beats.payload),
            unpacker.beats.valid.eq(beats.valid),  # takes none but those of its plans
            expander.beats.valid.eq(beats.valid & expander.commands.valid),
            beats.ready.eq(unpacker.beats.ready | expander.beats.ready),
            self.completed.eq(unpacker.completed | expanded),
        ]
        m.d.sync += expanded.eq(expander.commands.valid & expander.commands.ready)

    def _read(self, m, planner, buffer):
        """Address and data channels, the room that was promised, and faults."""
        bus, burst = self.bus, planner.bursts
        m.submodules.flying = flying = Queue(ADDRESS_BITS, IN_FLIGHT)
        promised = Signal(range(BUFFER_BEATS + 1))
        issue = Signal()
        used = Signal()
        fits = promised + burst.payload.beats < BUFFER_BEATS
        m.d.comb += [
            issue.eq(burst.valid & ~bus.arvalid & fits & flying.input.ready & ~self.stop),
            burst.ready.eq(issue),
            flying.input.valid.eq(issue),
            flying.input.payload.eq(burst.payload.offset),
            used.eq(buffer.output.valid & buffer.output.ready),
            bus.arsize.eq(BEAT_SIZE),
            bus.arburst.eq(INCREMENTING),
            buffer.input.payload.eq(bus.rdata),
            buffer.input.valid.eq(bus.rvalid & ~self.stop),
            bus.rready.eq(buffer.input.ready | self.stop),
            self.read_beat.eq(bus.rvalid & bus.rready),
            flying.output.ready.eq(self.read_beat & bus.rlast),
            self.idle.eq(~flying.output.valid),
        ]
        m.d.sync += promised.eq(promised + Mux(issue, burst.payload.beats, 0) - used)
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
                    self.fault.address.eq(flying.output.payload),
                ]
