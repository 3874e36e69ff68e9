"""The processor's lightweight AXI3 bridge to the register block's AXI4-Lite."""

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..interfaces import Axi4Lite
from .interfaces import Axi3

FIXED, INCREMENTING, WRAPPING = range(3)
"""AXI's kinds of bursts."""
ADDRESS = Axi3().members["awaddr"].shape
PAGE_BITS = Axi4Lite().members["awaddr"].shape
BURST = data.StructLayout({"id": 12, "address": ADDRESS, "step": 4, "moving": ADDRESS, "left": 4})
"""A burst under way: address of the next beat, bytes from one to the next, the address bits that
change at all, and the beats after this one."""


class LightweightBridge(Component):
    """Every beat of an AXI3 burst is one AXI4-Lite access; ids are given back.

    Beat i of a burst goes to the word that holds its address: the start address for FIXED, next to
    the beat before for INCR, within the burst's own block for WRAP; sizes below a word move by
    their size. Strobes are passed on (the register block answers SLVERR unless all four are 1), a
    read gives its whole word whatever its size. A write is answered with the worst response of its
    beats. Beyond the page of the register block, every address is that of the page's last word,
    which holds no register.

    One write burst and one read burst are under way at a time, independently: 4 cycles a written
    beat and 3 a read one, besides what the register block takes, and one cycle from a burst's last
    answer to the next burst's address. Nothing is accepted before it can be answered, so there is
    no bound to give but the register block's.
    """

    bus: In(Axi3())
    registers: Out(Axi4Lite())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._writes(m)
        self._reads(m)
        return m

    def _writes(self, m: Module) -> None:
        bus, registers = self.bus, self.registers
        burst, last, response = Signal(BURST), Signal(), Signal(2)
        asking, giving = Signal(), Signal()
        m.d.comb += [
            registers.awaddr.eq(_in_page(burst.address)),
            registers.awvalid.eq(asking),
            registers.wvalid.eq(giving),
            bus.bid.eq(burst.id),
            bus.bresp.eq(response),
        ]
        with m.If(registers.awready):
            m.d.sync += asking.eq(0)
        with m.If(registers.wready):
            m.d.sync += giving.eq(0)
        with m.FSM():
            with m.State("ADDRESS"):
                m.d.comb += bus.awready.eq(1)
                m.d.sync += [burst.eq(_begin(bus, "aw")), response.eq(0)]
                with m.If(bus.awvalid):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += bus.wready.eq(1)
                m.d.sync += [
                    Cat(registers.wdata, registers.wstrb, last).eq(
                        Cat(bus.wdata, bus.wstrb, bus.wlast)
                    ),
                    Cat(asking, giving).eq(bus.wvalid.replicate(2)),
                ]
                with m.If(bus.wvalid):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += registers.bready.eq(1)
                with m.If(registers.bvalid):
                    m.d.sync += [
                        response.eq(response | registers.bresp),
                        burst.address.eq(_following(burst)),
                    ]
                    m.next = "DATA"
                    with m.If(last):
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += bus.bvalid.eq(1)
                with m.If(bus.bready):
                    m.next = "ADDRESS"

    def _reads(self, m: Module) -> None:
        bus, registers = self.bus, self.registers
        burst = Signal(BURST)
        m.d.comb += [
            registers.araddr.eq(_in_page(burst.address)),
            bus.rid.eq(burst.id),
            bus.rlast.eq(burst.left == 0),
        ]
        with m.FSM():
            with m.State("ADDRESS"):
                m.d.comb += bus.arready.eq(1)
                m.d.sync += burst.eq(_begin(bus, "ar"))
                with m.If(bus.arvalid):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += registers.arvalid.eq(1)
                with m.If(registers.arready):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += registers.rready.eq(1)
                m.d.sync += [bus.rdata.eq(registers.rdata), bus.rresp.eq(registers.rresp)]
                with m.If(registers.rvalid):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += bus.rvalid.eq(1)
                with m.If(bus.rready):
                    m.d.sync += [burst.address.eq(_following(burst)), burst.left.eq(burst.left - 1)]
                    m.next = "ASK"
                    with m.If(bus.rlast):
                        m.next = "ADDRESS"


def _begin(bus, channel: str) -> Value:
    """The burst that the address channel `channel` offers, as a value of BURST."""
    kind, size, length = (getattr(bus, channel + name) for name in ("burst", "size", "len"))
    step = 1 << size[:2]
    block = (((length + 1) << size[:2]) - 1)[:ADDRESS]
    moving = Mux(kind == WRAPPING, block, (kind != FIXED).replicate(ADDRESS))
    return Cat(getattr(bus, channel + "id"), getattr(bus, channel + "addr"), step, moving, length)


def _following(burst) -> Value:
    """Address of the next beat: the start may lie inside its step, the others do not."""
    aligned = burst.address & ~(burst.step - 1)
    return (burst.address & ~burst.moving) | ((aligned + burst.step) & burst.moving)


def _in_page(address: Value) -> Value:
    beyond = address[PAGE_BITS:].any()
    return Cat(Const(0, 2), address[2:PAGE_BITS] | beyond.replicate(PAGE_BITS - 2))
