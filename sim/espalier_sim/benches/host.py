"""The host's side of a bench: clock, reset, and registers by name over AXI4-Lite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from espalier.spec import registers
from espalier.spec.registers import Status

PERIOD_NS = 10
RESET_CYCLES = 4


async def start_clock(dut: Any) -> None:
    """Start the clock and hold reset for some cycles. Inputs must have been given values before."""
    Clock(dut.clk, PERIOD_NS, "ns").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, RESET_CYCLES)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 1)


def pauses(random: Random, stall: float) -> Iterator[bool]:
    """Endless: True with probability `stall`."""
    while True:
        yield random.random() < stall


class Host:
    """Reads and writes registers by name, with pauses on all five channels."""

    def __init__(self, dut: Any, prefix: str, *, random: Random, stall: float):
        self._dut = dut
        # The bus joins prefix and signal with one underscore of its own.
        bus = AxiLiteBus.from_prefix(dut, prefix.removesuffix("_"))
        self._master = AxiLiteMaster(bus, dut.clk, dut.rst)
        read, write = self._master.read_if, self._master.write_if
        for interface in (read, write):
            interface.log.setLevel(logging.WARNING)
        for channel in (
            write.aw_channel,
            write.w_channel,
            write.b_channel,
            read.ar_channel,
            read.r_channel,
        ):
            channel.set_pause_generator(pauses(random, stall))

    async def read(self, name: str) -> int:
        """The value of a register. Fails on an error response."""
        return await self.read_address(registers.address(name))

    async def write(self, name: str, value: int) -> None:
        """Write a register. Fails on an error response."""
        await self.write_address(registers.address(name), value)

    async def read_address(self, address: int) -> int:
        answer = await self._master.read(address, 4)
        assert answer.resp == 0, f"reading {address:#x} was answered with {answer.resp!r}"
        return int.from_bytes(answer.data, "little")

    async def write_address(self, address: int, value: int) -> None:
        answer = await self._master.write(address, value.to_bytes(4, "little"))
        assert answer.resp == 0, f"writing {address:#x} was answered with {answer.resp!r}"

    async def wait(self, cycles: int = 100_000) -> int:
        """Poll STATUS until it is not BUSY and return it. Fails after about `cycles`."""
        for _ in range(cycles // 50):
            status = await self.read("STATUS")
            if not status & Status.BUSY:
                return status
            await ClockCycles(self._dut.clk, 50)
        raise AssertionError(f"still busy after {cycles} cycles")
