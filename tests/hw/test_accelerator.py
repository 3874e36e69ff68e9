"""The whole accelerator in Amaranth's simulator: small programs against the reference machine,
and every fault.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from axi_model import AxiLiteHost, AxiMemory, simulate

from espalier.spec.config import TINY
from espalier.spec.isa import (
    Combine,
    Instruction,
    Mode,
    Opcode,
    Scale,
    Source,
    Store,
    Sums,
    reduction_address,
)
from espalier.spec.memory import Memory
from espalier.spec.registers import COUNTERS, Control, Fault, Status, address
from espalier_hw.accelerator import Accelerator
from espalier_sim.reference.machine import Machine

BASE = 0x1000_0000
SIZE = 1 << 14
DATA = 0x1000
RESULT = 0x2000
ALL = {"wait_load": 0, "wait_engine": 0, "wait_vector": 0, "wait_store": 0, "wait_weights": 0}


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
        self.put(program)

    def put(self, program):
        """The program into the window, from offset 0."""
        self.program = program
        for n, instruction in enumerate(program):
            word = instruction if isinstance(instruction, int) else instruction.encode()
            self.memory.data[16 * n : 16 * n + 16] = word.to_bytes(16, "little")

    def run(self, script, cycles=20_000):
        async def bench(ctx):
            await script(self, ctx)

        simulate(
            self.dut,
            bench,
            self.memory.read_channel(self.dut.axi),
            self.memory.write_channel(self.dut.axi),
            cycles=cycles,
        )

    async def write(self, ctx, name, value):
        assert await self.host.write(ctx, address(name), value) == 0

    async def read(self, ctx, name):
        return await self.host.read(ctx, address(name))

    async def start(self, ctx, entry=0, watchdog=0, registers=(), size=SIZE):
        settings = {
            "WINDOW_BASE": BASE,
            "WINDOW_SIZE": size,
            "ENTRY": entry,
            "PROGRAM_LENGTH": len(self.program),
            "WATCHDOG": watchdog,
            **{f"R{n}": value for n, value in enumerate(registers)},
        }
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
        return tuple(
            [await self.read(ctx, name) for name in ("FAULT", "FAULT_PC", "FAULT_ADDRESS")]
        )


def copy_program(chunks=8, steps=3):
    """Loads vectors, adds them to themselves, stores the sums of all steps so far."""
    return [
        i(Opcode.SET, target=1, value=DATA),
        i(Opcode.SET, target=2, value=RESULT),
        i(Opcode.LOAD, memory=Memory.VECTOR, address=chunks, count=chunks, register=1),
        i(Opcode.LOOP, use_register=1, register=0, end=8),
        i(
            Opcode.LOAD,
            memory=Memory.VECTOR,
            address=0,
            count=chunks,
            register=1,
            increment=chunks * 8,
            wait_vector=0,
        ),
        i(
            Opcode.VECTOR,
            wait_load=0,
            count=chunks,
            source=Source.OPERAND,
            operand0=0,
            combine=Combine.ADD,
            operand1=chunks,
            write_vector=1,
            vector_address=chunks,
            store=Store.VALUES,
            register=2,
        ),
        i(
            Opcode.VECTOR,
            wait_vector=0,
            count=chunks,
            source=Source.OPERAND,
            operand0=chunks,
            sums=Sums.ACCUMULATE,
            store=Store.SUMS,
            register=3,
        ),
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


@pytest.mark.parametrize(
    "left",
    [
        i(Opcode.PRODUCT, groups=1),
        i(Opcode.LOAD, memory=Memory.VECTOR, count=1, register=1, increment=64),
    ],
)
def test_what_stands_behind_a_halt_does_not_matter_to_the_next_start(left):
    """The word left in the fetch must neither count as issued nor change a register."""
    program = [i(Opcode.HALT, **ALL), left, i(Opcode.HALT, **ALL)]

    async def script(bench, ctx):
        for _ in range(3):
            await bench.start(ctx, registers=[0, DATA])
            await bench.finish(ctx)
            assert await bench.read(ctx, "R1") == DATA

    Bench(program, 0).run(script)


def test_done_comes_with_the_scalar_which_a_fault_cannot_take_any_more():
    """A HALT right behind a reduction is DONE when its scalar is written; a start that faults and
    resets the units later, another one reads it."""
    moments = {"sums": Sums.MOMENTS, "sum_address": reduction_address(3, 5)}
    load = {"memory": Memory.VECTOR, "count": 1, "register": 1, "offset": 0}
    scaled = {"source": Source.OPERAND, "scale": Scale.SCALAR, "parameters": 3}
    program = [
        *(i(Opcode.VECTOR, count=1, **moments), i(Opcode.HALT, **ALL)),
        *(i(Opcode.VECTOR, count=1), i(Opcode.HALT, **ALL)),
        i(Opcode.LOAD, **load),
        i(Opcode.VECTOR, count=1, **scaled, store=Store.VALUES, register=2, wait_load=0),
        i(Opcode.HALT, **ALL),
        0,
    ]
    registers = [0, DATA, RESULT]

    async def cycles_until_done(bench, ctx, entry):
        await bench.start(ctx, entry=entry, registers=registers)
        cycles = 0
        while not ctx.get(bench.dut.interrupt):
            await ctx.tick()
            cycles += 1
        return cycles

    async def script(bench, ctx):
        bench.memory.data[DATA : DATA + 8] = np.array([1, -2, 30, 400], "<i2").tobytes()
        without = await cycles_until_done(bench, ctx, 2)
        assert await cycles_until_done(bench, ctx, 0) > without + 40
        await bench.start(ctx, entry=7)
        await bench.faulted(ctx)
        await bench.write(ctx, "CONTROL", Control.CLEAR_FAULT)
        await bench.start(ctx, entry=4, registers=registers)
        await bench.finish(ctx)
        assert list(np.frombuffer(bytes(bench.memory.data[RESULT : RESULT + 8]), "<i2")) == [
            *(32, -64, 960, 12800)
        ]

    Bench(program, 0, stall=0.0).run(script)


def product_program(groups):
    """Loads weights, descriptors and activations, multiplies, drains to DDR."""
    load = {"register": 1, "offset": 0}
    return [
        i(Opcode.SET, target=1, value=DATA),
        i(Opcode.LOAD, memory=Memory.WEIGHTS, address=0, count=8 * groups, **load),
        i(
            Opcode.LOAD,
            memory=Memory.DESCRIPTORS,
            address=0,
            count=groups,
            register=1,
            offset=0x800,
        ),
        i(
            Opcode.LOAD,
            memory=Memory.ACTIVATIONS,
            address=0,
            count=2 * groups,
            register=1,
            offset=0x900,
        ),
        i(Opcode.PRODUCT, mode=Mode.PLAIN, groups=groups, wait_load=0, wait_weights=0),
        i(
            Opcode.VECTOR,
            wait_engine=0,
            count=TINY.tile_chunks,
            source=Source.DRAIN,
            store=Store.SUMS,
            register=2,
        ),
        i(Opcode.HALT, **ALL),
    ]


def fill_product(bench, groups):
    """Random entries, two words a column, random activations, a few of them 0."""
    from espalier.spec.memory import descriptor

    layout, rng = descriptor(TINY), bench.rng
    for array in range(2):
        for g in range(groups):
            values = {"base": 8 * g, **{f"count{c}": 2 for c in range(TINY.group)}}
            at = DATA + 0x800 + 16 * (array * -(-groups // 2)) + 8 * g
            bench.memory.data[at : at + 8] = layout.pack(values).to_bytes(8, "little")
    for g in range(2 * groups):
        at = DATA + 0x900 + 8 * g
        column = [rng.choice((0, rng.randint(-127, 127))) for _ in range(TINY.group)]
        bench.memory.data[at : at + 8] = np.array(column + [0] * 4, np.int8).tobytes()


@pytest.mark.parametrize("seed", range(2))
def test_a_product_equals_the_reference(seed):
    groups, registers = 3, [0, 0, RESULT]

    async def script(bench, ctx):
        fill_product(bench, groups)
        await bench.start(ctx, registers=registers)
        await bench.finish(ctx)
        window, counters = reference(bench, registers)
        assert bytes(bench.memory.data) == window and any(window[RESULT : RESULT + 64])
        for name in set(COUNTERS) - {"cycles", "product_cycles"}:
            assert await bench.read(ctx, f"{name.upper()}_LOW") == counters[name], name

    Bench(product_program(groups), seed, stall=0.3 * seed).run(script)


async def works(bench, ctx):
    """The machine runs a good program after whatever happened before."""
    bench.put(product_program(2))
    fill_product(bench, 2)
    await bench.start(ctx, registers=[0, 0, RESULT])
    await bench.finish(ctx)
    window, _ = reference(bench, [0, 0, RESULT])
    assert bytes(bench.memory.data) == window


async def clear(bench, ctx):
    await bench.write(ctx, "CONTROL", Control.CLEAR_FAULT)
    assert await bench.read(ctx, "STATUS") == 0 and await bench.read(ctx, "FAULT") == 0
    assert not ctx.get(bench.dut.interrupt)


FAULTS = {
    "opcode 0": ([i(Opcode.SET), 0], {}, Fault.ILLEGAL_INSTRUCTION, 1, 0),
    "LOAD outside": (
        [i(Opcode.LOAD, memory=Memory.VECTOR, count=8, register=1), HALT],
        {"registers": [0, SIZE]},
        Fault.OUTSIDE_WINDOW,
        None,
        SIZE,
    ),
    "LOAD across the end": (
        [i(Opcode.LOAD, memory=Memory.VECTOR, count=8, register=1), HALT],
        {"registers": [0, 0x1FD0], "size": 0x2000 - 16},
        Fault.OUTSIDE_WINDOW,
        None,
        0x1FD0,
    ),
    "LOAD not aligned": (
        [i(Opcode.LOAD, memory=Memory.VECTOR, count=8, register=1), HALT],
        {"registers": [0, 0x1008]},
        Fault.OUTSIDE_WINDOW,
        None,
        0x1008,
    ),
    "LOAD far outside": (
        [i(Opcode.LOAD, memory=Memory.VECTOR, count=8, register=1), HALT],
        {"registers": [0, 0xFFFF_FFF0]},
        Fault.OUTSIDE_WINDOW,
        None,
        0xFFFF_FFF0,
    ),
    "store outside": (
        [i(Opcode.VECTOR, count=4, store=Store.SUMS, register=1), i(Opcode.HALT, **ALL)],
        {"registers": [0, 0x1FC0], "size": 0x2000 - 16},
        Fault.OUTSIDE_WINDOW,
        None,
        0x1FC0,
    ),
    "closed window": ([HALT], {"size": 0}, Fault.OUTSIDE_WINDOW, None, 0),
}


def test_faults_are_reported_cleared_and_survived():
    async def script(bench, ctx):
        for case, (program, settings, cause, pc, offset) in FAULTS.items():
            bench.put(program)
            before = bytes(bench.memory.data)
            await bench.start(ctx, **settings)
            got = await bench.faulted(ctx)
            assert (got[0], got[2]) == (cause, offset), case
            assert pc is None or got[1] == pc, case
            assert bytes(bench.memory.data) == before, case
            await clear(bench, ctx)
        await works(bench, ctx)

    Bench([HALT], seed=1).run(script)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_bus_errors_are_reported_with_the_burst(kind):
    async def script(bench, ctx):
        bad = BASE + (DATA + 32 if kind == "read" else RESULT + 16)
        bench.memory.bad.add(bad)
        await bench.start(ctx, registers=[3, 0, 0, RESULT + 0x800])
        cause, _, offset = await bench.faulted(ctx)
        assert cause == Fault.BUS_ERROR
        assert offset <= bad - BASE < offset + 256
        bench.memory.bad.clear()
        await clear(bench, ctx)
        await works(bench, ctx)

    Bench(copy_program(), seed=2).run(script)


def test_a_stalled_bus_bites_the_watchdog_and_drains_when_it_answers():
    async def script(bench, ctx):
        bench.memory.hang = True
        await bench.start(ctx, registers=[3, 0, 0, RESULT + 0x800], watchdog=50)
        status = await bench.wait(ctx, Status.FAULT, Status.FAULT)
        assert status == Status.FAULT | Status.DRAINING
        assert await bench.read(ctx, "FAULT") == Fault.WATCHDOG
        await bench.write(ctx, "CONTROL", Control.CLEAR_FAULT)
        assert await bench.read(ctx, "STATUS") == Status.FAULT | Status.DRAINING
        bench.memory.hang = False
        await bench.faulted(ctx)
        await clear(bench, ctx)
        await works(bench, ctx)

    Bench(copy_program(), seed=3).run(script)


@pytest.mark.parametrize("seed", range(3))
def test_abort_at_any_time(seed):
    """Bursts in flight are ended as the bus demands (the memory model checks), then the machine
    is as new.
    """

    async def script(bench, ctx):
        for delay in (1, 5, 33, *(bench.rng.randint(40, 400) for _ in range(4))):
            bench.put(copy_program())
            await bench.start(ctx, registers=[100, 0, 0, RESULT + 0x800])
            await ctx.tick().repeat(delay)
            await bench.write(ctx, "CONTROL", Control.ABORT)
            assert (await bench.faulted(ctx))[0] == Fault.ABORTED
            await clear(bench, ctx)
        await works(bench, ctx)

    Bench([HALT], seed, stall=0.3 * seed).run(script)


def test_slots_left_full_by_a_fault_are_cleared_by_the_next_start():
    program = [*product_program(2)[:5], i(Opcode.LOAD, wait_engine=0)]

    async def script(bench, ctx):
        fill_product(bench, 2)
        await bench.start(ctx)
        assert (await bench.faulted(ctx))[0] == Fault.ILLEGAL_INSTRUCTION
        await clear(bench, ctx)
        await works(bench, ctx)

    Bench(program, seed=6).run(script)


def test_commands_at_the_wrong_time_are_ignored():
    async def script(bench, ctx):
        await bench.write(ctx, "CONTROL", Control.ABORT | Control.CLEAR_FAULT)
        assert await bench.read(ctx, "STATUS") == 0
        await bench.start(ctx, registers=[2, 0, 0, RESULT + 0x800])
        for name in ("WINDOW_SIZE", "R3", "PROGRAM_LENGTH"):
            await bench.write(ctx, name, 0)
        await bench.write(ctx, "CONTROL", Control.START)
        await bench.finish(ctx)
        assert await bench.read(ctx, "WINDOW_SIZE") == SIZE
        assert await bench.read(ctx, "R3") == RESULT + 0x800
        before = await bench.read(ctx, "INSTRUCTIONS_LOW")
        await bench.write(ctx, "CONTROL", Control.START)
        await bench.finish(ctx)
        assert await bench.read(ctx, "INSTRUCTIONS_LOW") == before

    Bench(copy_program(), seed=4).run(script)
