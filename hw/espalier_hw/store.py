"""The store unit: results to DDR, the write half of the AXI4 port."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

from espalier.spec.config import BEAT_BYTES, Config
from espalier.spec.isa import QUEUE_DEPTH, Store
from espalier.spec.registers import Fault

from .bursts import BURST_BEATS, IN_FLIGHT, BurstPlanner, FaultReport
from .interfaces import ADDRESS_BITS, BEAT_BITS, STORE_COMMAND, Axi4, stored_chunk
from .loader import BEAT_SIZE, INCREMENTING
from .packer import KINDS, Packer, by_kind, halves
from .queues import Queue

BUFFER_BEATS = 4 * BURST_BEATS
FLIGHT = data.StructLayout({"offset": ADDRESS_BITS, "last": 1})
"""A burst whose response is due; `last` of its command."""


class WritePort(Signature):
    """The write half of `Axi4`."""

    def __init__(self) -> None:
        members = Axi4().members
        super().__init__(
            {name: member for name, member in members.items() if name.startswith(("aw", "w", "b"))}
        )


class StoreUnit(Component):
    """Writes the chunks of a VECTOR to DDR.

    A burst starts only when all its beats are in the buffer, so it always ends, whatever becomes
    of the vector unit; the address goes first, then the data at one beat a cycle (18 cycles a full
    burst). A command's `completed` pulses the cycle after the response of its last burst.

    A burst outside the window, or answered by an error, raises `fault`, which stays until reset.
    While `stop` is 1 no further burst starts; `idle` says that none is in flight.

    Members
    -------
    bus: write half of the AXI4 port. commands, completed: one pulse each when done.
    chunks: the data, in the order of the commands. write_beat: event, one beat was taken.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "bus": Out(WritePort()),
                "commands": In(stream.Signature(STORE_COMMAND)),
                "completed": Out(1),
                "chunks": In(stream.Signature(stored_chunk(config))),
                "window_base": In(ADDRESS_BITS),
                "window_size": In(ADDRESS_BITS),
                "fault": Out(FaultReport()),
                "stop": In(1),
                "idle": Out(1),
                "write_beat": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        most_beats = (halves(self._config, Store.SUMS) * 0x1FF + 1) // 2
        m.submodules.queue = queue = Queue(STORE_COMMAND, QUEUE_DEPTH)
        m.submodules.packer = packer = Packer(self._config)
        m.submodules.planner = planner = BurstPlanner(most_beats.bit_length(), (1,))
        m.submodules.buffer = buffer = Queue(BEAT_BITS, BUFFER_BEATS, block=True)
        m.submodules.flying = flying = Queue(FLIGHT, IN_FLIGHT)
        connect(m, flipped(self.commands), queue.input)
        connect(m, flipped(self.chunks), packer.chunks)
        connect(m, packer.beats, buffer.input)
        m.d.comb += [
            planner.window_base.eq(self.window_base),
            planner.window_size.eq(self.window_size),
        ]
        self._start(m, queue.output, packer.runs, planner.requests)
        self._bursts(m, planner, buffer, flying)
        self._responses(m, planner, flying)
        return m

    def _start(self, m, commands, runs, requests):
        """One command starts packer and planner together."""
        command = commands.payload
        sizes = {kind: command.chunks * halves(self._config, kind) for kind in KINDS}
        size = by_kind(command.kind, sizes)
        both = runs.ready & requests.ready
        m.d.comb += [
            commands.ready.eq(both),
            runs.valid.eq(commands.valid & both),
            runs.payload.chunks.eq(command.chunks),
            runs.payload.kind.eq(command.kind),
            requests.valid.eq(commands.valid & both),
            requests.payload.ddr.eq(command.ddr),
            requests.payload.units.eq((size + 1) >> 1),
            requests.payload.packing.eq(1),
        ]

    def _bursts(self, m, planner, buffer, flying):
        """One burst after the other: wait for its data, then address, then data."""
        bus, burst = self.bus, planner.bursts
        left = Signal(range(BURST_BEATS + 1))
        at_hand = (buffer.level >= burst.payload.beats) & flying.input.ready & ~self.stop
        m.d.comb += [
            flying.input.payload.offset.eq(burst.payload.offset),
            flying.input.payload.last.eq(burst.payload.last),
            bus.awsize.eq(BEAT_SIZE),
            bus.awburst.eq(INCREMENTING),
            bus.wdata.eq(buffer.output.payload),
            bus.wstrb.eq((1 << BEAT_BYTES) - 1),
            bus.wlast.eq(left == 1),
            self.write_beat.eq(bus.wvalid & bus.wready),
        ]
        with m.FSM():
            with m.State("WAIT"):
                m.d.sync += [
                    bus.awaddr.eq(burst.payload.address),
                    bus.awlen.eq(burst.payload.beats - 1),
                    left.eq(burst.payload.beats),
                ]
                with m.If(burst.valid & at_hand):
                    m.d.comb += [burst.ready.eq(1), flying.input.valid.eq(1)]
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.comb += bus.awvalid.eq(1)
                with m.If(bus.awready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [bus.wvalid.eq(buffer.output.valid), buffer.output.ready.eq(bus.wready)]
                with m.If(self.write_beat):
                    m.d.sync += left.eq(left - 1)
                    with m.If(bus.wlast):
                        m.next = "WAIT"

    def _responses(self, m, planner, flying):
        oldest = flying.output.payload
        m.d.comb += [
            self.bus.bready.eq(1),
            flying.output.ready.eq(self.bus.bvalid),
            self.idle.eq(~flying.output.valid),
        ]
        m.d.sync += self.completed.eq(self.bus.bvalid & oldest.last)
        with m.If(~self.fault.valid):
            m.d.sync += [
                self.fault.valid.eq(planner.fault.valid),
                self.fault.cause.eq(planner.fault.cause),
                self.fault.address.eq(planner.fault.address),
            ]
            with m.If(self.bus.bvalid & self.bus.bresp[1]):
                m.d.sync += [
                    self.fault.valid.eq(1),
                    self.fault.cause.eq(Fault.BUS_ERROR),
                    self.fault.address.eq(oldest.offset),
                ]
