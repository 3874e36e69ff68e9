"""Radiona ULX3S with an ECP5-85F: everything on the chip, the host at the USB serial port."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out, connect

from espalier.spec.config import Config

from ..accelerator import Accelerator
from ..bridges.axi_ram import AxiRam
from ..bridges.axi_share import AxiShare
from ..bridges.serial_link import SerialLink
from ..bridges.status import StatusWatch

WINDOW_BYTES = 96 << 10
"""Block RAM for the window: 45 of the 208 blocks, and of the 52 of a row, where they all lie."""
LEDS = 8
BLINK_BITS = 26
"""LED 0 changes every 2^25 cycles: nearly twice a second at 60 MHz."""


class Ulx3sFabric(Component):
    """Serial link, accelerator, and the window memory that both share; one clock, `sync`.

    Parameters
    ----------
    clocks: cycles a bit on the serial line.
    window_bytes: a multiple of 4096.

    Members
    -------
    rx, tx: the serial line. leds: 0 alive (blinks), 1 busy, 2 fault.
    """

    def __init__(self, config: Config, *, clocks: int, window_bytes: int = WINDOW_BYTES):
        self._config, self._clocks, self._window_bytes = config, clocks, window_bytes
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "leds": Out(LEDS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.link = link = SerialLink(self._clocks, memory_bytes=self._window_bytes)
        m.submodules.watch = watch = StatusWatch()
        m.submodules.accelerator = accelerator = Accelerator(self._config)
        m.submodules.share = share = AxiShare()
        m.submodules.window = window = AxiRam(self._window_bytes)
        connect(m, link.registers, watch.host)
        connect(m, watch.registers, accelerator.csr)
        connect(m, accelerator.axi, share.first)
        connect(m, link.memory, share.second)
        connect(m, share.slave, window.bus)
        blink = Signal(BLINK_BITS)
        m.d.sync += blink.eq(blink + 1)
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            self.leds.eq(Cat(blink[-1], watch.status.busy, watch.status.fault)),
        ]
        return m
