"""DE1-SoC fabric bench: random programs through both bridges, compared with the reference machine;
register bursts of every kind; hold and drain."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles

from espalier.spec import registers
from espalier.spec.config import preset
from espalier.spec.isa import REGISTERS
from espalier.spec.registers import SIZE_BYTES, Control, Fault, Status
from espalier_sim.reference.machine import Machine

from .accelerator import BASE, WATCHDOG_CYCLES, Bench, compare
from .axi3 import FIXED, INCREMENTING, OKAY, SLAVE_ERROR, WRAPPING, LightweightHost
from .programs import WINDOW_BYTES, draw
from .sdram_memory import SdramMemory
from .streams import until

CONFIG = preset(os.environ["ESPALIER_CONFIG"])
SEED = int(os.environ["COCOTB_RANDOM_SEED"])
PROGRAMS = 3
R0 = registers.address("R0")
LED_BUSY, LED_FAULT = 1 << 1, 1 << 2


class FabricBench(Bench):
    """Processor and DDR on the fabric's ports."""

    def __init__(self, dut: Any, stall: float):
        self.dut, self.random = dut, Random(SEED)
        self.memory = SdramMemory(
            dut, "sdram__", base=BASE, size=WINDOW_BYTES, random=self.random, stall=stall
        )
        self.host = LightweightHost(dut, "lw__", random=self.random, stall=stall)
        dut.hold.value = 0


async def _ready(dut: Any, stall: float) -> FabricBench:
    """Out of reset, and registers cleared, whose memory a reset leaves as it is."""
    bench = FabricBench(dut, stall)
    await bench.power_up()
    assert await bench.host.master.write(R0, [0] * REGISTERS) == OKAY
    return bench


async def _random_programs(dut: Any, stall: float) -> None:
    bench = await _ready(dut, stall)
    machine = Machine(CONFIG, bytearray(WINDOW_BYTES))
    for i in range(PROGRAMS):
        await compare(bench, machine, 1000 * SEED + i)
        assert int(dut.interrupt.value) == 1 and int(dut.drained.value) == 1


@cocotb.test()
async def programs_without_stalls(dut: Any) -> None:
    await _random_programs(dut, 0.0)


@cocotb.test()
async def programs_with_stalls(dut: Any) -> None:
    await _random_programs(dut, 0.35)


def beat_addresses(address: int, beats: int, size: int, kind: int) -> list[int]:
    """Where the beats of a burst go, by AXI's definition."""
    step, result = 1 << size, [address]
    block = beats * step
    for i in range(1, beats):
        following = address // step * step + i * step
        if kind == WRAPPING:
            following = address // block * block + (address + i * step) % block
        result.append(address if kind == FIXED else following)
    return result


def _random_burst(random: Random) -> tuple[int, int, int]:
    """(address, beats, kind) of a burst of words inside the sequencer's registers."""
    kind = random.choice((FIXED, INCREMENTING, WRAPPING))
    beats = random.choice((2, 4, 8, 16)) if kind == WRAPPING else random.randint(1, 16)
    first = random.randrange(17 - beats) if kind == INCREMENTING else random.randrange(16)
    return R0 + 4 * first, beats, kind


@cocotb.test()
async def register_bursts(dut: Any) -> None:
    """Words written by bursts of all kinds are read back by bursts of all kinds."""
    bench = await _ready(dut, 0.3)
    random, values = bench.random, dict.fromkeys(range(R0, R0 + 64, 4), 0)
    for _ in range(60):
        address, beats, kind = _random_burst(random)
        where = beat_addresses(address, beats, 2, kind)
        if random.random() < 0.5:
            words = [random.randrange(1 << 32) for _ in where]
            assert await bench.host.master.write(address, words, kind=kind) == OKAY
            values.update(zip(where, words, strict=True))
        else:
            words, response = await bench.host.master.read(address, beats, kind=kind)
            assert (words, response) == ([values[i] for i in where], OKAY)


@cocotb.test()
async def accesses_queue_up(dut: Any) -> None:
    """Several bursts under way at once are answered in order, reads beside writes."""
    bench = await _ready(dut, 0.2)
    master = bench.host.master
    words = [bench.random.randrange(1 << 32) for _ in range(16)]
    writes = [
        cocotb.start_soon(master.write(R0 + 16 * i, words[4 * i : 4 * i + 4])) for i in range(4)
    ]
    reads = [cocotb.start_soon(master.read(registers.address("MAGIC"), 3)) for _ in range(4)]
    assert [await task for task in writes] == [OKAY] * 4
    for task in reads:
        (magic, _, identity), response = await task
        assert (magic, identity, response) == (registers.MAGIC, CONFIG.identity, OKAY)
    assert (await master.read(R0, 16))[0] == words


@cocotb.test()
async def narrow_and_unaligned_accesses(dut: Any) -> None:
    """Parts of a word are refused without effect; reads give the word that holds the address."""
    bench = await _ready(dut, 0.2)
    master = bench.host.master
    await master.write(R0, [0x0123_4567, 0x89AB_CDEF])
    for size, strobes in ((0, [1, 2, 4, 8]), (1, [3, 12])):
        words = [0xFFFF_FFFF] * len(strobes)
        assert await master.write(R0, words, strobes=strobes, size=size) == SLAVE_ERROR
        beats = 7 if size == 0 else 4
        where = beat_addresses(R0 + 1, beats, size, INCREMENTING)
        expected = [0x0123_4567 if address < R0 + 4 else 0x89AB_CDEF for address in where]
        assert await master.read(R0 + 1, beats, size=size) == (expected, OKAY)
    assert await master.write(R0, [1, 2], strobes=[15, 7]) == SLAVE_ERROR
    assert (await master.read(R0 + 2, 2))[0] == [1, 0x89AB_CDEF]


@cocotb.test()
async def nothing_beyond_the_registers(dut: Any) -> None:
    bench = await _ready(dut, 0.1)
    beyond = [SIZE_BYTES, 0xFFC, 0x1000, 0x1040, 0x1F_FFFC, 0x10_0000 + R0]
    await bench.host.write_address(R0, 77)
    for address in beyond:
        await bench.host.write_address(address, 0xFFFF_FFFF)
        assert await bench.host.read_address(address) == 0
    assert await bench.host.read_address(R0) == 77


@cocotb.test()
async def lights_follow_the_state(dut: Any) -> None:
    bench = await _ready(dut, 0.0)
    await bench.host.write("WINDOW_SIZE", 0)
    await bench.start(draw(CONFIG, SEED))
    await until(dut, lambda: int(dut.leds.value) & LED_FAULT, 5000)
    assert await bench.host.read("FAULT") == Fault.OUTSIDE_WINDOW
    await bench.host.write("CONTROL", Control.CLEAR_FAULT)
    await until(dut, lambda: not int(dut.leds.value) & LED_FAULT, 200)
    await bench.host.write("WINDOW_SIZE", WINDOW_BYTES)
    await bench.start(draw(CONFIG, SEED))
    await until(dut, lambda: int(dut.leds.value) & LED_BUSY, 5000)
    await bench.host.wait()
    await until(dut, lambda: not int(dut.leds.value) & (LED_BUSY | LED_FAULT), 200)


@cocotb.test()
async def hold_drains_at_any_moment(dut: Any) -> None:
    """Held in the middle of a run, the port becomes quiet and stays so; released, the run ends as
    if nothing had been."""
    bench = await _ready(dut, 0.3)
    await bench.host.write("WATCHDOG", 0)
    machine = Machine(CONFIG, bytearray(WINDOW_BYTES))
    for i in range(3):
        task = cocotb.start_soon(compare(bench, machine, 1000 * SEED + i))
        for _ in range(4):
            await ClockCycles(dut.clk, bench.random.randint(20, 400))
            dut.hold.value = 1
            await ClockCycles(dut.clk, 2)
            await until(dut, lambda: int(dut.drained.value), 2000)
            for _ in range(50):
                assert bench.memory.quiet and not int(dut.sdram__read.value)
                await ClockCycles(dut.clk, 1)
            dut.hold.value = 0
        await task


@cocotb.test()
async def abort_leaves_the_port_quiet(dut: Any) -> None:
    bench = await _ready(dut, 0.3)
    await bench.start(draw(CONFIG, SEED))
    await ClockCycles(dut.clk, bench.random.randint(30, 200))
    await bench.host.write("CONTROL", Control.ABORT)
    assert await bench.host.wait() & Status.FAULT
    while await bench.host.read("STATUS") & Status.DRAINING:
        pass
    assert bench.memory.quiet and int(dut.drained.value)
    await bench.host.write("CONTROL", Control.CLEAR_FAULT)
    await bench.host.write("WATCHDOG", WATCHDOG_CYCLES)
    await compare(bench, Machine(CONFIG, bytearray(WINDOW_BYTES)), SEED)
