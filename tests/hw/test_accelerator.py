"""The whole accelerator in Amaranth's simulator: small programs against the reference machine, and every fault."""

from __future__ import annotations

import random

import numpy as np
import pytest
from axi_model import AxiLiteHost, AxiMemory, simulate

from espalier.spec.config import TINY
from espalier.spec.isa import Combine, Instruction, Mode, Opcode, Source, Store, Sums
from espalier.spec.memory import Memory
from espalier.spec.registers import COUNTERS, Control, Fault, Status, address
from espalier_hw.accelerator import Accelerator
from espalier_sim.reference.machine import Machine

BASE = 0x1000_0000
SIZE = 1 << 14
DATA = 0x1000
RESULT = 0x2000
ALL = {"wait_load": 0, "wait_engine": 0, "wait_vector": 0, "wait_store": 0}


def i(opcode, **fields):
    return Instruction(opcode, fields)


HALT = i(Opcode.HALT)


class Bench:
    """One TINY accelerator with memory and host. `script(bench, ctx)` is what the test does."""

    def __init__(self, program, seed=0, stall=0.3):
        self.rng = random.Random(seed)
        self.dut = Accelerator(TINY)
        self.host = AxiLiteHost(self.dut.csr, self.rng, stall)
        self.memory = AxiMemory(self.rng, BASE, SIZE, stall)
        self.program = program
        for n, instruction in enumerate(program):
            word = instruction if isinstance(instruction, int) else instruction.encode()
            self.memory.data[16 * n : 16 * n + 16] = word.to_bytes(16, "little")

    def run(self, script, cycles=20_000):
        async def bench(ctx):
            await script(self, ctx)

        simulate(self.dut, bench, self.memory.read_channel(self.dut.axi),
                 self.memory.write_channel(self.dut.axi), cycles=cycles)

    async def write(self, ctx, name, value):
        assert await self.host.write(ctx, address(name), value) == 0

    async def read(self, ctx, name):
        return await self.host.read(ctx, address(name))

    async def start(self, ctx, entry=0, watchdog=0, registers=(), size=SIZE):
        settings = {"WINDOW_BASE": BASE, "WINDOW_SIZE": size, "ENTRY": entry,
                    "PROGRAM_LENGTH": len(self.program), "WATCHDOG": watchdog,
                    **{f"R{n}": value for n, value in enumerate(registers)}}
        for name, value in settings.items():
            await self.write(ctx, name, value)
        await self.write(ctx, "CONTROL", Control.START | Control.LOAD_PROGRAM)

    async def wait(self, ctx, mask, wanted):
        """Poll STATUS until its bits in `mask` are `wanted`; returns it."""
        while ((status := Status(await self.read(ctx, "STATUS"))) & mask) != wanted:
            pass
        return status

    async def finish(self, ctx):
        status = await self.wait(ctx, Status.BUSY, 0)
        assert status == Status.DONE, f"{status!r}, fault {await self.read(ctx, 'FAULT')}"
        assert ctx.get(self.dut.interrupt)

    async def faulted(self, ctx):
        """Wait for a fault to be drained; returns (cause, pc, address)."""
        status = await self.wait(ctx, Status.FAULT | Status.DRAINING, Status.FAULT)
        assert status == Status.FAULT and ctx.get(self.dut.interrupt)
        return tuple([await self.read(ctx, name) for name in ("FAULT", "FAULT_PC", "FAULT_ADDRESS")])


def copy_program(chunks=8, steps=3):
    """Loads vectors, adds them to themselves, stores the sums of all steps so far."""
    return [
        i(Opcode.SET, target=1, value=DATA),
        i(Opcode.SET, target=2, value=RESULT),
        i(Opcode.LOAD, memory=Memory.VECTOR, address=chunks, count=chunks, register=1),
        i(Opcode.LOOP, use_register=1, register=0, end=8),
        i(Opcode.LOAD, memory=Memory.VECTOR, address=0, count=chunks, register=1,
          increment=chunks * 8, wait_vector=0),
        i(Opcode.VECTOR, wait_load=0, count=chunks, source=Source.OPERAND, operand0=0, combine=Combine.ADD,
          operand1=chunks, write_vector=1, vector_address=chunks, store=Store.VALUES, register=2),
        i(Opcode.VECTOR, wait_vector=0, count=chunks, source=Source.OPERAND, operand0=chunks, sums=Sums.ACCUMULATE,
          store=Store.SUMS, register=3),
        i(Opcode.SET, target=2, use_source=1, source=2, value=chunks * 8),
        i(Opcode.END),
        i(Opcode.HALT, **ALL),
    ]


def reference(bench, registers, entry=0):
    """Window and counters after the reference machine ran the bench's program."""
    window = bytearray(bench.memory.data)
    machine = Machine(TINY, window)
    machine.registers[: len(registers)] = registers
    machine.start()
    machine.load_program(len(bench.program))
    machine.run(entry, len(bench.program))
    return bytes(window), machine.counters


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_of_vectors_equals_the_reference(seed):
    registers = [3, 0, 0, RESULT + 0x800]

    async def script(bench, ctx):
        await bench.start(ctx, registers=registers)
        await bench.finish(ctx)
        window, counters = reference(bench, registers)
        assert bytes(bench.memory.data) == window
        for name in set(COUNTERS) - {"cycles", "product_cycles"}:
            assert await bench.read(ctx, f"{name.upper()}_LOW") == counters[name], name
            assert await bench.read(ctx, f"{name.upper()}_HIGH") == 0

    Bench(copy_program(), seed, stall=(0.0, 0.3, 0.6)[seed]).run(script)
