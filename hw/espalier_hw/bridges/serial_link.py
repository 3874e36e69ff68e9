"""The board's end of the serial link (spec.link): from two wires to the two buses."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..interfaces import Axi4, Axi4Lite
from .serial_bus import BusAccess
from .serial_frames import FrameReceiver, FrameSender
from .serial_requests import Requests
from .serial_uart import UartReceiver, UartTransmitter


class LinkCore(Component):
    """Answers each request among the bytes that come with one reply; master of the register block
    and of the window memory.

    A frame is executed only when all of it has come and its CRC is right. The link waits for the
    buses as long as they take.

    Parameters
    ----------
    memory_base, memory_bytes: the window on the bus; requests cannot leave it.

    Members
    -------
    valid, byte: from the line, at least 3 cycles apart. output: to the line.
    """

    def __init__(self, *, memory_bytes: int, memory_base: int = 0):
        self._window = {"memory_bytes": memory_bytes, "memory_base": memory_base}
        super().__init__(
            {
                "valid": In(1),
                "byte": In(8),
                "output": Out(stream.Signature(8)),
                "registers": Out(Axi4Lite()),
                "memory": Out(Axi4()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.requests = requests = Requests(**self._window)
        m.submodules.bus = bus = BusAccess()
        m.submodules.sender = sender = FrameSender()
        connect(m, receiver.frame, requests.frames)
        connect(m, requests.accesses, bus.accesses)
        connect(m, bus.results, requests.results)
        connect(m, bus.registers, flipped(self.registers))
        connect(m, bus.memory, flipped(self.memory))
        connect(m, requests.reply, sender.input)
        connect(m, sender.output, flipped(self.output))
        m.d.comb += [
            receiver.valid.eq(self.valid),
            receiver.byte.eq(self.byte),
            receiver.address.eq(requests.address),
            requests.payload.eq(receiver.payload),
        ]
        return m


class SerialLink(Component):
    """`LinkCore` between the wires `rx` and `tx`.

    Parameters
    ----------
    clocks: cycles a bit (`serial_uart.clocks_per_bit`).
    memory_base, memory_bytes: see `LinkCore`.
    """

    def __init__(self, clocks: int, *, memory_bytes: int, memory_base: int = 0):
        self._clocks = clocks
        self._core = LinkCore(memory_bytes=memory_bytes, memory_base=memory_base)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "registers": Out(Axi4Lite()),
                "memory": Out(Axi4()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self._clocks)
        m.submodules.core = core = self._core
        m.submodules.transmitter = transmitter = UartTransmitter(self._clocks)
        connect(m, core.output, transmitter.input)
        connect(m, core.registers, flipped(self.registers))
        connect(m, core.memory, flipped(self.memory))
        m.d.comb += [
            receiver.line.eq(self.rx),
            self.tx.eq(transmitter.line),
            core.valid.eq(receiver.valid),
            core.byte.eq(receiver.byte),
        ]
        return m
