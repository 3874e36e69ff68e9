"""Block RAM as an AXI4 slave: the window memory of a board without DDR."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In

from espalier.spec.config import BEAT_BYTES

from ..interfaces import BEAT_BITS, Axi4
from ..queues import Queue
from ..register_block import OKAY, SLAVE_ERROR

OFFSET_BITS = BEAT_BYTES.bit_length() - 1
READ_AHEAD = 8
"""Beats between the memory and the bus: covers the read's latency at one beat a cycle."""
READ_BEAT = data.StructLayout({"data": BEAT_BITS, "last": 1, "error": 1})


class AxiRam(Component):
    """`size_bytes` of block RAM from bus address 0; INCR bursts of whole beats that cross no page.

    Reads: one beat a cycle, the first 4 cycles after its address, bursts back to back. Writes: one
    beat a cycle, 2 cycles more a burst. A burst beyond the memory, or a beat without all its
    strobes, is answered with an error; it reads anything and writes nothing.

    Parameters
    ----------
    size_bytes: a multiple of 4096, so that no burst begins inside and ends outside.
    """

    def __init__(self, size_bytes: int):
        self._depth = size_bytes // BEAT_BYTES
        super().__init__({"bus": In(Axi4())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=BEAT_BITS, depth=self._depth, init=[])
        self._reads(m, memory.read_port())
        self._writes(m, memory.write_port())
        return m

    def _beyond(self, address: Value) -> Value:
        return address[OFFSET_BITS:] >= self._depth

    def _reads(self, m: Module, port) -> None:
        bus = self.bus
        m.submodules.ahead = ahead = Queue(READ_BEAT, READ_AHEAD)
        # Stages: address | the memory's register | a register, for the way from the memory is long
        busy, error, issue, taken = Signal(), Signal(), Signal(), Signal()
        position, left = Signal(range(self._depth)), Signal(len(bus.arlen))
        room = Signal(range(READ_AHEAD + 1), init=READ_AHEAD)
        reading = Signal(data.StructLayout({"valid": 1, "last": 1, "error": 1}))
        arrived, arrived_valid = Signal(READ_BEAT, reset_less=True), Signal()
        m.d.comb += [
            issue.eq(busy & (room != 0)),
            bus.arready.eq(~busy | (issue & (left == 0))),
            port.addr.eq(position),
            ahead.input.payload.eq(arrived),
            ahead.input.valid.eq(arrived_valid),
            bus.rvalid.eq(ahead.output.valid),
            ahead.output.ready.eq(bus.rready),
            bus.rdata.eq(ahead.output.payload.data),
            bus.rlast.eq(ahead.output.payload.last),
            bus.rresp.eq(Mux(ahead.output.payload.error, SLAVE_ERROR, OKAY)),
            taken.eq(bus.rvalid & bus.rready),
        ]
        with m.If(issue):
            m.d.sync += [position.eq(position + 1), left.eq(left - 1), busy.eq(left != 0)]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [
                busy.eq(1),
                position.eq(bus.araddr[OFFSET_BITS:]),
                left.eq(bus.arlen),
                error.eq(self._beyond(bus.araddr)),
            ]
        m.d.sync += [
            room.eq(room - issue + taken),
            reading.eq(Cat(issue, left == 0, error)),
            arrived_valid.eq(reading.valid),
            arrived.eq(Cat(port.data, reading.last, reading.error)),
        ]

    def _writes(self, m: Module, port) -> None:
        bus = self.bus
        position, failed = Signal(range(self._depth)), Signal()
        fits = bus.wstrb.all() & ~failed
        m.d.sync += [port.en.eq(0), port.addr.eq(position), port.data.eq(bus.wdata)]
        with m.FSM():
            with m.State("ADDRESS"):
                m.d.comb += bus.awready.eq(1)
                m.d.sync += [
                    position.eq(bus.awaddr[OFFSET_BITS:]),
                    failed.eq(self._beyond(bus.awaddr)),
                ]
                with m.If(bus.awvalid):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += bus.wready.eq(1)
                with m.If(bus.wvalid):
                    m.d.sync += [
                        port.en.eq(fits),
                        failed.eq(~fits),
                        position.eq(position + 1),
                    ]
                    with m.If(bus.wlast):
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [
                    bus.bvalid.eq(1),
                    bus.bresp.eq(Mux(failed, SLAVE_ERROR, OKAY)),
                ]
                with m.If(bus.bready):
                    m.next = "ADDRESS"
