"""What the accelerator does, for lights: its STATUS register, read whenever the host is silent."""

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.registers import address

from ..control import STATUS
from ..interfaces import Axi4Lite


class StatusWatch(Component):
    """Passes register accesses through and reads STATUS in between.

    Writes pass untouched. Reads of the host go first; when none is there, STATUS is read into
    `status`, which delays a read that comes meanwhile by at most the register block's own answer
    (4 cycles). `status` is at most a few cycles old while the host is silent.
    """

    host: In(Axi4Lite())
    registers: Out(Axi4Lite())
    status: Out(STATUS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        host, registers = self.host, self.registers
        for name in ("awvalid", "awaddr", "wvalid", "wdata", "wstrb", "bready"):
            m.d.comb += getattr(registers, name).eq(getattr(host, name))
        for name in ("awready", "wready", "bvalid", "bresp", "rdata", "rresp"):
            m.d.comb += getattr(host, name).eq(getattr(registers, name))
        with m.FSM():
            with m.State("CHOOSE"):
                m.next = "WATCH"
                with m.If(host.arvalid):
                    m.next = "HOST"
            with m.State("HOST"):
                m.d.comb += [
                    registers.araddr.eq(host.araddr),
                    registers.arvalid.eq(host.arvalid),
                    host.arready.eq(registers.arready),
                ]
                with m.If(host.arvalid & host.arready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [host.rvalid.eq(registers.rvalid), registers.rready.eq(host.rready)]
                with m.If(host.rvalid & host.rready):
                    m.next = "CHOOSE"
            with m.State("WATCH"):
                m.d.comb += [
                    registers.araddr.eq(address("STATUS")),
                    registers.arvalid.eq(1),
                ]
                with m.If(registers.arready):
                    m.next = "SEEN"
            with m.State("SEEN"):
                m.d.comb += registers.rready.eq(1)
                with m.If(registers.rvalid):
                    m.d.sync += self.status.eq(registers.rdata)
                    m.next = "CHOOSE"
        return m
