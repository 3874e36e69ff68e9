"""Accelerator bench: random programs, every word written compared with the reference machine."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb

from espalier.spec import registers
from espalier.spec.config import preset
from espalier.spec.registers import COUNTERS, Control, Fault, Status
from espalier_sim.reference.machine import Machine

from .axi_memory import AxiMemory
from .host import Host, start_clock
from .programs import WINDOW_BYTES, Program, draw

BASE = 0x3000_0000
PROGRAMS = 4
WATCHDOG_CYCLES = 5000
HARDWARE_ONLY = ("cycles", "product_cycles")
CONFIG = preset(os.environ["ESPALIER_CONFIG"])
SEED = int(os.environ["COCOTB_RANDOM_SEED"])


class Bench:
    """Host, memory and the interrupt wire."""

    def __init__(self, dut: Any, stall: float):
        self.dut, self.random = dut, Random(SEED)
        self.memory = AxiMemory(
            dut, "axi__", base=BASE, size=WINDOW_BYTES, random=self.random, stall=stall
        )
        self.host = Host(dut, "csr__", random=self.random, stall=stall)

    async def power_up(self) -> None:
        await start_clock(self.dut)
        await self.host.write("WINDOW_BASE", BASE)
        await self.host.write("WINDOW_SIZE", WINDOW_BYTES)
        await self.host.write("WATCHDOG", WATCHDOG_CYCLES)

    async def start(self, program: Program) -> None:
        self.memory.data[:] = program.image
        self.memory.written.clear()
        await self.host.write("ENTRY", 0)
        await self.host.write("PROGRAM_LENGTH", program.length)
        await self.host.write("CONTROL", Control.START | Control.LOAD_PROGRAM)

    async def counters(self) -> dict[str, int]:
        """All event counters that the reference has, too."""
        result = {}
        for name in COUNTERS:
            if name not in HARDWARE_ONLY:
                low = await self.host.read(f"{name.upper()}_LOW")
                result[name] = low | (await self.host.read(f"{name.upper()}_HIGH")) << 32
        return result


def reference(machine: Machine, program: Program) -> None:
    """Run the program on the machine, whose memories keep what the program before left."""
    machine.window[:] = program.image
    machine.start()
    machine.load_program(program.length)
    machine.run(0, program.length)


async def compare(bench: Bench, machine: Machine, seed: int) -> None:
    program = draw(CONFIG, seed)
    reference(machine, program)
    await bench.start(program)
    status = await bench.host.wait()
    assert status == Status.DONE, f"seed {seed}: fault {await bench.host.read('FAULT')}"
    assert bench.memory.written == machine.written, f"seed {seed}: words written differ"
    assert bench.memory.data == machine.window
    assert await bench.counters() == {
        name: value for name, value in machine.counters.items() if name not in HARDWARE_ONLY
    }, f"seed {seed}"
    for index, value in enumerate(machine.registers):
        assert await bench.host.read(f"R{index}") == value, f"seed {seed}: R{index}"


async def _random_programs(dut: Any, stall: float) -> None:
    bench = Bench(dut, stall)
    machine = Machine(CONFIG, bytearray(WINDOW_BYTES))
    await bench.power_up()
    for i in range(PROGRAMS):
        await compare(bench, machine, 1000 * SEED + i)
        assert int(dut.interrupt.value) == 1


@cocotb.test()
async def programs_without_stalls(dut: Any) -> None:
    await _random_programs(dut, 0.0)


@cocotb.test()
async def programs_with_stalls(dut: Any) -> None:
    await _random_programs(dut, 0.35)


@cocotb.test()
async def identity(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.power_up()
    assert await bench.host.read("MAGIC") == registers.MAGIC
    assert await bench.host.read("IDENTITY") == CONFIG.identity
    assert await bench.host.read("STATUS") == 0


async def _recovers(bench: Bench, cause: Fault) -> None:
    """The fault is reported, cleared, and the next program runs as if nothing had been."""
    status = await bench.host.wait()
    assert status & Status.FAULT and await bench.host.read("FAULT") == cause
    assert int(bench.dut.interrupt.value) == 1
    bench.memory.hangs, bench.memory.fail_at = False, None
    while await bench.host.read("STATUS") & Status.DRAINING:
        pass
    await bench.host.write("CONTROL", Control.CLEAR_FAULT)
    await bench.host.write("WATCHDOG", WATCHDOG_CYCLES)
    assert not await bench.host.read("STATUS") & Status.FAULT
    await compare(bench, Machine(CONFIG, bytearray(WINDOW_BYTES)), SEED)


@cocotb.test()
async def bus_error_stops_and_clears(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.power_up()
    bench.memory.fail_at = 0x2010
    await bench.start(draw(CONFIG, SEED))
    await _recovers(bench, Fault.BUS_ERROR)


@cocotb.test()
async def stalled_bus_ends_by_watchdog(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.power_up()
    await bench.host.write("WATCHDOG", 300)
    await bench.start(draw(CONFIG, SEED))
    bench.memory.hangs = True
    await _recovers(bench, Fault.WATCHDOG)


@cocotb.test()
async def abort_stops_a_run(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.power_up()
    await bench.start(draw(CONFIG, SEED))
    await bench.host.write("CONTROL", Control.ABORT)
    await _recovers(bench, Fault.ABORTED)


@cocotb.test()
async def illegal_instruction_stops(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.power_up()
    program = draw(CONFIG, SEED)
    program.image[16 * 3 : 16 * 4] = bytes(16)
    await bench.start(program)
    await _recovers(bench, Fault.ILLEGAL_INSTRUCTION)


@cocotb.test()
async def closed_window_stops(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.power_up()
    await bench.host.write("WINDOW_SIZE", 0)
    await bench.start(draw(CONFIG, SEED))
    status = await bench.host.wait()
    assert status & Status.FAULT and await bench.host.read("FAULT") == Fault.OUTSIDE_WINDOW
    assert not bench.memory.written
