"""The ULX3S' pins and clock around `Ulx3sFabric`."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import *

from espalier.spec.config import Config

from ..bridges.serial_uart import clocks_per_bit
from .ulx3s import LEDS, Ulx3sFabric

OSCILLATOR_MHZ = 25
BAUD = 3_000_000
"""The most that the board's FT231X does."""
LOWEST_COMPARED_MHZ = 3.125
OSCILLATION_MHZ = (400, 800)
"""Limits of the PLL's phase comparison and of its oscillator. Source: Lattice FPGA-DS-02012, ECP5
and ECP5-5G Family, sysCLOCK PLL Timing."""


@dataclass(frozen=True)
class Pll:
    """Dividers of an EHXPLLL with feedback from its output: f = 25 MHz · feedback / reference.

    >>> Pll.of(80)
    Pll(reference=5, feedback=16, output=8)
    """

    reference: int
    feedback: int
    output: int

    @classmethod
    def of(cls, clock_mhz: float) -> Pll:
        """The dividers of `clock_mhz`. Raises ValueError when there are none."""
        low, high = OSCILLATION_MHZ
        for reference in range(1, int(OSCILLATOR_MHZ / LOWEST_COMPARED_MHZ) + 1):
            feedback = clock_mhz * reference / OSCILLATOR_MHZ
            output = round((low + high) / 2 / clock_mhz)
            if feedback == int(feedback) and low <= clock_mhz * output <= high:
                return cls(reference, int(feedback), output)
        raise ValueError(
            f"clock_mhz must be {OSCILLATOR_MHZ} MHz times a fraction of denominator 1 to 8, "
            f"not {clock_mhz}"
        )

    def instance(self, clock_in: Signal, clock_out: Signal, locked: Signal) -> Instance:
        """The hard block. Parameters as Project Trellis' ecppll writes them."""
        return Instance(
            "EHXPLLL",
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC",
            p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=self.reference,
            p_CLKFB_DIV=self.feedback,
            p_CLKOP_DIV=self.output,
            p_CLKOP_CPHASE=self.output // 2,
            p_CLKOP_FPHASE=0,
            p_CLKOP_ENABLE="ENABLED",
            p_FEEDBK_PATH="CLKOP",
            i_CLKI=clock_in,
            i_CLKFB=clock_out,
            o_CLKOP=clock_out,
            o_LOCK=locked,
            i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1),
            i_PHASELOADREG=Const(1),
            **{
                f"i_{name}": Const(0)
                for name in ("RST", "STDBY", "PHASESEL0", "PHASESEL1", "PLLWAKESYNC", "ENCLKOP")
            },
        )


class Ulx3sTop(Elaboratable):
    """`Ulx3sFabric` at `clock_mhz`, its serial line at the FT231X, its lights at the LEDs.

    The global set/reset holds every register until the PLL has locked, so that the machine needs no
    reset network.

    Raises
    ------
    ValueError: the clock cannot be made, or no divisor of it comes near `baud`.
    """

    def __init__(self, config: Config, *, clock_mhz: float, baud: int = BAUD):
        self._pll = Pll.of(clock_mhz)
        self._fabric = Ulx3sFabric(config, clocks=clocks_per_bit(clock_mhz * 1e6, baud))

    def elaborate(self, platform) -> Module:
        m = Module()
        clock, locked = Signal(), Signal()
        m.domains.sync = ClockDomain(reset_less=True)
        m.submodules.pll = self._pll.instance(platform.request("clk25").i, clock, locked)
        m.d.comb += ClockSignal().eq(clock)
        released = locked
        for stage in range(2):
            before, released = released, Signal(name=f"released_{stage}")
            m.submodules[f"release_{stage}"] = Instance(
                "FD1S3AX", p_GSR="DISABLED", i_CK=clock, i_D=before, o_Q=released
            )
        m.submodules.reset = Instance("SGSR", i_CLK=clock, i_GSR=released)
        m.submodules.fabric = fabric = self._fabric
        serial = platform.request("uart")
        m.d.comb += [fabric.rx.eq(serial.rx.i), serial.tx.o.eq(fabric.tx)]
        for number in range(LEDS):
            m.d.comb += platform.request("led", number).o.eq(fabric.leds[number])
        return m
