"""Terasic DE1-SoC: the accelerator behind the Cyclone V's processor system."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import Config

from ..accelerator import Accelerator
from ..bridges.interfaces import Axi3, SdramPort
from ..bridges.lightweight import LightweightBridge
from ..bridges.sdram import SdramBridge
from ..bridges.status import StatusWatch

LEDS = 10
BLINK_BITS = 26
"""LED 0 changes every 2^25 cycles: 3 times a second at 100 MHz."""


class De1SocFabric(Component):
    """All between the processor system's ports and the accelerator; one clock, `sync`.

    128 bits a cycle from DDR, which is what the loader takes: 1.6 GB/s at 100 MHz and 2.0 GB/s at
    125, of the DDR's 3.2 GB/s. A faster clock for the port alone would change nothing
    (docs/decisions/0005).

    Members
    -------
    lw: the lightweight bridge (0xFF200000): spec.registers from 0 on, everything else reads 0.
    sdram: port 0, 128 bits. interrupt: DONE or FAULT, a level.
    hold, drained: keep further bursts off the SDRAM port; it owes nothing and is owed nothing.
    leds: 0 alive (blinks), 1 busy, 2 fault, 3 drained, 4 interrupt.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "lw": In(Axi3()),
                "sdram": Out(SdramPort()),
                "interrupt": Out(1),
                "leds": Out(LEDS),
                "hold": In(1),
                "drained": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lightweight = lightweight = LightweightBridge()
        m.submodules.watch = watch = StatusWatch()
        m.submodules.accelerator = accelerator = Accelerator(self._config)
        m.submodules.memory = memory = SdramBridge()
        connect(m, flipped(self.lw), lightweight.bus)
        connect(m, lightweight.registers, watch.host)
        connect(m, watch.registers, accelerator.csr)
        connect(m, accelerator.axi, memory.axi)
        connect(m, memory.port, flipped(self.sdram))
        blink = Signal(BLINK_BITS)
        m.d.sync += blink.eq(blink + 1)
        status = watch.status
        m.d.comb += [
            memory.hold.eq(self.hold),
            self.drained.eq(memory.drained),
            self.interrupt.eq(accelerator.interrupt),
            self.leds.eq(Cat(blink[-1], status.busy, status.fault, self.drained, self.interrupt)),
        ]
        return m
