"""One access at a time to the registers or to memory, for the serial link."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import BEAT_BYTES
from espalier.spec.link import REGISTER_BYTES

from ..interfaces import ADDRESS_BITS, BEAT_BITS, Axi4, Axi4Lite

WORD_BITS = 8 * REGISTER_BYTES
ACCESS = data.StructLayout({"write": 1, "memory": 1, "address": ADDRESS_BITS, "data": BEAT_BITS})
"""A beat of memory at a bus address, or a register, whose value is the low bits of `data`."""
RESULT = data.StructLayout({"data": BEAT_BITS, "error": 1})
INCREMENTING = 1


class BusAccess(Component):
    """Carries out accesses in order, each to its answer, as AXI4-Lite words or AXI4 bursts of one
    beat; an access takes 2 cycles beside the time that the bus needs.
    """

    accesses: In(stream.Signature(ACCESS))
    results: Out(stream.Signature(RESULT))
    registers: Out(Axi4Lite())
    memory: Out(Axi4())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access = Signal(ACCESS)
        memory, registers = self.memory, self.registers
        m.d.comb += [
            Cat(memory.awlen, memory.arlen).eq(0),
            *(size.eq(BEAT_BYTES.bit_length() - 1) for size in (memory.awsize, memory.arsize)),
            *(kind.eq(INCREMENTING) for kind in (memory.awburst, memory.arburst)),
            *(strobe.eq(-1) for strobe in (memory.wstrb, registers.wstrb)),
            memory.wlast.eq(1),
        ]
        for bus in (memory, registers):
            m.d.comb += [
                Cat(bus.awaddr).eq(access.address),
                Cat(bus.araddr).eq(access.address),
                Cat(bus.wdata).eq(access.data),
            ]
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.accesses.ready.eq(1)
                m.d.sync += access.eq(self.accesses.payload)
                with m.If(self.accesses.valid):
                    m.d.sync += self._offer(self.accesses.payload)
                    m.next = "WAIT"
            with m.State("WAIT"):
                for bus, chosen in ((memory, access.memory), (registers, ~access.memory)):
                    self._wait(m, bus, chosen, access.write)
            with m.State("ANSWER"):
                m.d.comb += self.results.valid.eq(1)
                with m.If(self.results.ready):
                    m.next = "TAKE"
        return m

    def _offer(self, access: data.View) -> list:
        """The valid signals of `access`, each of which stays until it is taken."""
        return [
            signal.eq(chosen & direction)
            for bus, chosen in ((self.memory, access.memory), (self.registers, ~access.memory))
            for signal, direction in (
                (bus.awvalid, access.write),
                (bus.wvalid, access.write),
                (bus.arvalid, ~access.write),
            )
        ]

    def _wait(self, m: Module, bus, chosen: Value, write: Value) -> None:
        result = self.results.payload
        for channel in ("aw", "w", "ar"):
            valid, ready = getattr(bus, f"{channel}valid"), getattr(bus, f"{channel}ready")
            with m.If(ready):
                m.d.sync += valid.eq(0)
        m.d.comb += [bus.bready.eq(chosen & write), bus.rready.eq(chosen & ~write)]
        with m.If((bus.bready & bus.bvalid) | (bus.rready & bus.rvalid)):
            m.d.sync += [result.data.eq(bus.rdata), result.error.eq(bus.bresp[1])]
            with m.If(~write):
                m.d.sync += result.error.eq(bus.rresp[1])
            m.next = "ANSWER"
