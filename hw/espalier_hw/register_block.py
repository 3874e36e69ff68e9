"""The register block: the host's side of the accelerator, an AXI4-Lite slave (spec.registers)."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec import isa
from espalier.spec.config import Config
from espalier.spec.registers import COUNTERS, MAGIC, REGISTERS, address

from .control import COMMAND, FAULT, STATUS
from .counters import Counters, Events
from .interfaces import Axi4Lite
from .register_file import RegisterPort

SETTINGS = ("window_base", "window_size", "entry", "program_length", "watchdog")
"""Host-written registers, as outputs of the same name."""
OKAY, SLAVE_ERROR = 0, 2
PAGE_BITS = 12


def _word(name: str) -> int:
    return address(name) >> 2


class RegisterBlock(Component):
    """Holds the settings, shows state and counters, turns writes of CONTROL into strobes.

    Address and data of a write may come in any order; one write and one read are under way at a
    time. A write takes effect the cycle after both its halves are there; a read is answered 3
    cycles after its address. What is not in the map reads as 0 and takes writes without effect; a
    write of less than a word is answered with an error and has no effect; `rw` registers take
    writes only while the machine is neither busy nor draining.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "bus": In(Axi4Lite()),
                "command": Out(COMMAND),
                "status": In(STATUS),
                "fault": In(FAULT),
                **{name: Out(32) for name in SETTINGS},
                "registers": Out(RegisterPort()),
                "events": In(Events(config)),
                "clear_counters": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.counters = counters = Counters(self._config)
        connect(m, flipped(self.events), counters.events)
        m.d.comb += counters.clear.eq(self.clear_counters)
        self._writes(m)
        self._reads(m, counters)
        return m

    def _writes(self, m):
        bus = self.bus
        has_address, has_data = Signal(), Signal()
        word = Signal(len(bus.awaddr) - 2)
        value, strobes = Signal(32), Signal(4)
        write = Signal()
        whole = strobes.all()
        m.d.comb += [
            bus.awready.eq(~has_address),
            bus.wready.eq(~has_data),
            write.eq(has_address & has_data & ~bus.bvalid),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [word.eq(bus.awaddr[2:]), has_address.eq(1)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [value.eq(bus.wdata), strobes.eq(bus.wstrb), has_data.eq(1)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(write):
            m.d.sync += [
                has_address.eq(0),
                has_data.eq(0),
                bus.bvalid.eq(1),
                bus.bresp.eq(Mux(whole, OKAY, SLAVE_ERROR)),
            ]
        self._effect(m, write & whole, word, value)

    def _effect(self, m, write, word, value):
        """What a write of `value` to `word` does."""
        free = write & ~self.status.busy & ~self.status.draining
        first = _word("R0")
        m.d.comb += [self.registers.target.eq(word - first), self.registers.value.eq(value)]
        with m.If(write & (word == _word("CONTROL"))):
            m.d.comb += self.command.eq(value[: COMMAND.size])
        with m.If(free & (word >= first) & (word < first + isa.REGISTERS)):
            m.d.comb += self.registers.write.eq(1)
        for name in SETTINGS:
            with m.If(free & (word == _word(name.upper()))):
                m.d.sync += getattr(self, name).eq(value)
                if name == "window_base":
                    m.d.sync += self.window_base[:PAGE_BITS].eq(0)

    def _reads(self, m, counters):
        bus = self.bus
        word = Signal(len(bus.araddr) - 2)
        m.d.comb += [
            self.registers.read.eq(word - _word("R0")),
            counters.index.eq((word - _word(f"{next(iter(COUNTERS)).upper()}_LOW")) >> 1),
        ]
        with m.FSM():
            with m.State("ADDRESS"):
                m.d.comb += bus.arready.eq(1)
                m.d.sync += word.eq(bus.araddr[2:])
                with m.If(bus.arvalid):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.next = "TAKE"
            with m.State("TAKE"):
                self._value(m, word, bus.rdata, counters.data)
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += bus.rvalid.eq(1)
                with m.If(bus.rready):
                    m.next = "ADDRESS"

    def _value(self, m, word, result, counter):
        """result <= the register at `word`."""
        simple = {
            "MAGIC": MAGIC,
            "VERSION": isa.VERSION,
            "IDENTITY": self._config.identity,
            "STATUS": self.status.as_value(),
            "FAULT": self.fault.cause,
            "FAULT_PC": self.fault.pc,
            "FAULT_ADDRESS": self.fault.address,
            **{name.upper(): getattr(self, name) for name in SETTINGS},
            **{f"R{index}": self.registers.data for index in range(isa.REGISTERS)},
            **{f"{name.upper()}_LOW": counter[:32] for name in COUNTERS},
            **{f"{name.upper()}_HIGH": counter[32:] for name in COUNTERS},
        }
        m.d.sync += result.eq(0)
        with m.Switch(word):
            for name, value in simple.items():
                assert REGISTERS[name].access != "wo"
                with m.Case(_word(name)):
                    m.d.sync += result.eq(value)
