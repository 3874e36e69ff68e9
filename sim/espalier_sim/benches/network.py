"""Compiled programs on the accelerator: set-up, reset and runs, compared with the reference machine
after each.

ESPALIER_PROGRAM is the program's file; inputs and chunks are drawn from the seed.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb
import numpy as np

from espalier.program import Program
from espalier.runtime import ports
from espalier.runtime.buffers import plan
from espalier.spec.isa import REGISTERS
from espalier.spec.registers import Control, Status
from espalier_sim.reference.machine import Machine

from .accelerator import CONFIG, HARDWARE_ONLY, SEED, Bench
from .programs import WINDOW_BYTES

PROGRAM = Program.load(os.environ["ESPALIER_PROGRAM"])
MOST_CYCLES = 20_000
CHUNKS = (1, 3)
"""Time steps of the runs, one after the other."""


class Pair:
    """The accelerator and the reference machine, started together on equal windows."""

    def __init__(self, dut: Any, stall: float):
        self.bench = Bench(dut, stall)
        self.machine = Machine(CONFIG, bytearray(WINDOW_BYTES))
        self.cycles = 0

    async def power_up(self) -> None:
        """The window holds the program; registers, which a reset of the bench keeps, are 0."""
        await self.bench.power_up()
        await self.bench.host.write("PROGRAM_LENGTH", PROGRAM.instructions)
        for index in range(REGISTERS):
            await self.bench.host.write(f"R{index}", 0)
        self.write(0, PROGRAM.image.tobytes())

    def write(self, offset: int, data: bytes) -> None:
        for window in (self.bench.memory.data, self.machine.window):
            window[offset : offset + len(data)] = data

    async def start(self, entry: str, registers: dict[int, int], load: bool = False) -> None:
        """Run an entry on both; all that it left behind is equal."""
        self._start_machine(entry, registers, load)
        host = self.bench.host
        self.bench.memory.written.clear()
        for index, value in registers.items():
            await host.write(f"R{index}", value)
        await host.write("ENTRY", PROGRAM.entries[entry])
        await host.write("CONTROL", Control.START | (Control.LOAD_PROGRAM if load else 0))
        status = await host.wait()
        assert status == Status.DONE, f"{entry}: fault {await host.read('FAULT')}"
        await self._compare(entry)

    def _start_machine(self, entry: str, registers: dict[int, int], load: bool) -> None:
        machine = self.machine
        for index, value in registers.items():
            machine.registers[index] = value
        machine.start()
        if load:
            machine.load_program(PROGRAM.instructions)
        machine.run(PROGRAM.entries[entry], PROGRAM.instructions)

    async def _compare(self, entry: str) -> None:
        memory, machine, host = self.bench.memory, self.machine, self.bench.host
        assert memory.written == machine.written, f"{entry}: words written differ"
        assert memory.data == machine.window, f"{entry}: windows differ"
        assert await self.bench.counters() == {
            name: value for name, value in machine.counters.items() if name not in HARDWARE_ONLY
        }, entry
        for index, value in enumerate(machine.registers):
            assert await host.read(f"R{index}") == value, f"{entry}: R{index}"
        self.cycles += await host.read("CYCLES_LOW")


def inputs(random: Random, steps: int) -> dict[str, bytes]:
    """Bytes in DDR of every input: often the lowest or the highest value, so differences are
    large."""
    result = {}
    for port in PROGRAM.inputs:
        times, (low, high) = 1 if port.time_axis is None else steps, ports.BOUNDS[port.kind]
        features = [
            [random.choice([0, low, high, random.randint(low, high)]) for _ in port.positions]
            for _ in range(times)
        ]
        result[port.name] = ports.encode(port, CONFIG, np.array(features)).tobytes()
    return result


async def _network(dut: Any, stall: float) -> None:
    pair, random = Pair(dut, stall), Random(SEED)
    await pair.power_up()
    buffers = plan(PROGRAM, 1)
    await pair.start("setup", buffers.registers, load=True)
    await pair.start("reset", buffers.registers)
    for steps in CHUNKS:
        buffers = plan(PROGRAM, steps)
        for name, data in inputs(random, steps).items():
            pair.write(buffers.offsets[name], data)
        await pair.start("run", buffers.registers)
        assert pair.bench.memory.written, "nothing came out"
    dut._log.info("%d cycles", pair.cycles)
    assert pair.cycles <= MOST_CYCLES, f"{pair.cycles} cycles: draw a smaller model"


@cocotb.test()
async def without_stalls(dut: Any) -> None:
    await _network(dut, 0.0)


@cocotb.test()
async def with_stalls(dut: Any) -> None:
    await _network(dut, 0.3)
