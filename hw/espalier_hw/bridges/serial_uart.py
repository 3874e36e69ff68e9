"""Bytes to and from a serial line: 8 data bits, no parity, one stop bit."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

DATA_BITS = 8
FEWEST_CLOCKS = 4
"""A bit, for the receiver to find its middle."""
MOST_DEVIATION = 0.02
"""Of the bit rate: over the 9.5 bits to the middle of the stop bit, a fifth of a bit."""


def clocks_per_bit(clock_hz: float, baud: int) -> int:
    """The divisor of `clock_hz` that comes nearest to `baud`.

    Raises ValueError when it is below 4 or more than 2 % off.
    """
    clocks = round(clock_hz / baud)
    if clocks < FEWEST_CLOCKS:
        raise ValueError(
            f"a bit must last at least {FEWEST_CLOCKS} clocks: baud must be at most "
            f"{clock_hz / FEWEST_CLOCKS:.0f}, not {baud}"
        )
    deviation = clock_hz / clocks / baud - 1
    if abs(deviation) > MOST_DEVIATION:
        raise ValueError(
            f"baud must be within {MOST_DEVIATION:.0%} of {clock_hz:.0f} Hz divided by a whole "
            f"number; {baud} is {deviation:+.1%} off"
        )
    return clocks


class UartReceiver(Component):
    """Bytes from the line; `valid` is 1 for one cycle a byte, which cannot be refused.

    A start bit must still be there in its middle; each bit is taken once, in its middle. A byte
    without a stop bit is dropped, and nothing begins before the line has gone up again.

    Parameters
    ----------
    clocks: cycles a bit.
    """

    def __init__(self, clocks: int):
        self._clocks = clocks
        super().__init__({"line": In(1, init=1), "valid": Out(1), "byte": Out(DATA_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.line, line, init=1)
        timer = Signal(range(self._clocks))
        left = Signal(range(DATA_BITS + 1))
        middle = Signal()
        m.d.comb += middle.eq(timer == 0)
        m.d.sync += [self.valid.eq(0), timer.eq(Mux(middle, self._clocks - 1, timer - 1))]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [timer.eq(self._clocks // 2 - 1), left.eq(DATA_BITS)]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(middle):
                    m.next = "DATA"
                    with m.If(line):
                        m.next = "IDLE"
            with m.State("DATA"):
                with m.If(middle):
                    m.d.sync += [self.byte.eq(Cat(self.byte[1:], line)), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(middle):
                    m.d.sync += self.valid.eq(line)
                    m.next = "RISE"
            with m.State("RISE"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(Component):
    """Bytes to the line, back to back while there are any; 10 bits of `clocks` cycles each."""

    def __init__(self, clocks: int):
        self._clocks = clocks
        super().__init__({"input": In(stream.Signature(DATA_BITS)), "line": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer = Signal(range(self._clocks))
        bits = Signal(DATA_BITS + 1, init=-1)
        left = Signal(range(DATA_BITS + 3))
        m.d.comb += self.input.ready.eq(left == 0)
        with m.If(left == 0):
            m.d.sync += timer.eq(self._clocks - 1)
            with m.If(self.input.valid):
                m.d.sync += [
                    self.line.eq(0),
                    bits.eq(Cat(self.input.payload, 1)),
                    left.eq(DATA_BITS + 2),
                ]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)
            with m.If(timer == 0):
                m.d.sync += [
                    timer.eq(self._clocks - 1),
                    left.eq(left - 1),
                    self.line.eq(bits[0]),
                    bits.eq(Cat(bits[1:], 1)),
                ]
        return m
