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
BANK_BEATS = 2048
"""Block RAM of the ECP5 is narrow when deep: 2,048 words of 9 bits each."""
READ_AHEAD = 8
"""Beats between the memory and the bus: covers the read's latency at one beat a cycle."""
READ_BEAT = data.StructLayout({"data": BEAT_BITS, "last": 1, "error": 1})


class AxiRam(Component):
    """`size_bytes` of block RAM from bus address 0; INCR bursts of whole beats that cross no page.

    Reads: one beat a cycle, the first 5 cycles after its address, bursts back to back. Writes: one
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
        banks = []
        for number, first in enumerate(range(0, self._depth, BANK_BEATS)):
            depth = min(BANK_BEATS, self._depth - first)
            m.submodules[f"bank_{number}"] = bank = Memory(shape=BEAT_BITS, depth=depth, init=[])
            banks.append(bank)
        self._reads(m, [bank.read_port() for bank in banks])
        self._writes(m, [bank.write_port() for bank in banks])
        return m

    def _beyond(self, address: Value) -> Value:
        return address[OFFSET_BITS:] >= self._depth

    def _reads(self, m: Module, ports) -> None:
        bus = self.bus
        m.submodules.ahead = ahead = Queue(READ_BEAT, READ_AHEAD)
        # Stages: address | block RAM | a register beside each bank, for block RAM answers late and
        # the way to the bus is long | the bank that was asked
        busy, error, issue, taken = Signal(), Signal(), Signal(), Signal()
        position, left = Signal(range(self._depth)), Signal(len(bus.arlen))
        room = Signal(range(READ_AHEAD + 1), init=READ_AHEAD)
        bank = position[BANK_BEATS.bit_length() - 1 :]
        stage = data.StructLayout({"valid": 1, "last": 1, "error": 1, "bank": max(len(bank), 1)})
        reading, registered = Signal(stage), Signal(stage)
        words = Signal(data.ArrayLayout(BEAT_BITS, len(ports)), reset_less=True)
        arrived, arrived_valid = Signal(READ_BEAT, reset_less=True), Signal()
        m.d.comb += [
            issue.eq(busy & (room != 0)),
            bus.arready.eq(~busy | (issue & (left == 0))),
            *(port.addr.eq(position) for port in ports),
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
            reading.eq(Cat(issue, left == 0, error, bank)),
            *(word.eq(port.data) for word, port in zip(words, ports, strict=True)),
            registered.eq(reading),
            arrived_valid.eq(registered.valid),
            arrived.eq(Cat(words[registered.bank], registered.last, registered.error)),
        ]

    def _writes(self, m: Module, ports) -> None:
        bus = self.bus
        position, failed = Signal(range(self._depth)), Signal()
        fits = bus.wstrb.all() & ~failed
        bank = position[BANK_BEATS.bit_length() - 1 :]
        # One register of address and data for all banks: they are as far apart as the chip is wide.
        address, word = Signal(range(BANK_BEATS)), Signal(BEAT_BITS, reset_less=True)
        m.d.sync += [address.eq(position), word.eq(bus.wdata)]
        for number, port in enumerate(ports):
            chosen = (bank == number) if len(bank) else 1
            m.d.comb += [port.addr.eq(address), port.data.eq(word)]
            m.d.sync += port.en.eq(bus.wvalid & bus.wready & fits & chosen)
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
                    m.d.sync += [failed.eq(~fits), position.eq(position + 1)]
                    with m.If(bus.wlast):
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [
                    bus.bvalid.eq(1),
                    bus.bresp.eq(Mux(failed, SLAVE_ERROR, OKAY)),
                ]
                with m.If(bus.bready):
                    m.next = "ADDRESS"
