"""The register block and its counters against spec.registers, with random order and pauses on the
bus.
"""

from __future__ import annotations

import random

import pytest
from axi_model import AxiLiteHost, simulate

from espalier.spec import isa
from espalier.spec.config import SMALL
from espalier.spec.registers import COUNTERS, MAGIC, REGISTERS, Control, Status, address
from espalier_hw.counters import SWEEP_CYCLES, Counters, Events
from espalier_hw.register_block import SETTINGS, RegisterBlock

MASK = 0xFFFFFFFF


class Registers:
    """Stands for the sequencer's register file."""

    def __init__(self, port):
        self.port, self.values = port, [0] * isa.REGISTERS

    async def bench(self, ctx):
        port = self.port
        while True:
            *_, read, write, target, value = await ctx.tick().sample(
                port.read, port.write, port.target, port.value
            )
            if write:
                self.values[target] = value
            ctx.set(port.data, self.values[read])


def run(script, seed, stall=0.5):
    dut = RegisterBlock(SMALL)
    registers = Registers(dut.registers)
    host = AxiLiteHost(dut.bus, random.Random(seed), stall)

    async def bench(ctx):
        await script(ctx, dut, host, registers)

    simulate(dut, bench, registers.bench)


@pytest.mark.parametrize("seed", range(3))
def test_every_register_is_what_the_map_says(seed):
    rng = random.Random(seed)

    async def script(ctx, dut, host, registers):
        model = {name.upper(): 0 for name in SETTINGS} | {f"R{n}": 0 for n in range(16)}
        status = {"STATUS": Status.FAULT, "FAULT": 4, "FAULT_PC": 99, "FAULT_ADDRESS": 0xABCD_EF00}
        ctx.set(dut.status.as_value(), int(status["STATUS"]))
        ctx.set(dut.fault, {"cause": 4, "pc": 99, "address": 0xABCD_EF00})
        fixed = {
            "MAGIC": MAGIC,
            "VERSION": isa.VERSION,
            "IDENTITY": SMALL.identity,
            "CONTROL": 0,
            **status,
        }
        counters = {name: 0 for name in REGISTERS if name.endswith(("_LOW", "_HIGH"))}
        for name in rng.sample(list(REGISTERS), len(REGISTERS)) * 2:
            value = rng.getrandbits(32)
            if name != "CONTROL":
                assert await host.write(ctx, address(name), value) == 0
            if name in model:
                model[name] = value & ~0xFFF if name == "WINDOW_BASE" else value
            other = rng.choice(list(REGISTERS))
            wanted = {**model, **fixed, **counters}[other]
            assert await host.read(ctx, address(other)) == wanted, other
        for name in SETTINGS:
            assert ctx.get(getattr(dut, name)) == model[name.upper()]
        assert registers.values == [model[f"R{n}"] for n in range(16)]
        for hole in (0x34, 0x3C, 0xC8, 0x100, 0xFFC):
            assert await host.write(ctx, hole, MASK) == 0
            assert await host.read(ctx, hole) == 0

    run(script, seed)


def test_settings_hold_while_busy_and_part_writes_are_refused():
    async def script(ctx, dut, host, registers):
        await host.write(ctx, address("ENTRY"), 5)
        await host.write(ctx, address("R4"), 6)
        for state in (Status.BUSY, Status.FAULT | Status.DRAINING):
            ctx.set(dut.status.as_value(), int(state))
            assert await host.write(ctx, address("ENTRY"), 7) == 0
            assert await host.write(ctx, address("R4"), 7) == 0
        ctx.set(dut.status.as_value(), 0)
        assert await host.write(ctx, address("ENTRY"), 7, strobes=7) == 2
        assert await host.read(ctx, address("ENTRY")) == 5 and registers.values[4] == 6

    run(script, 1)


def test_control_gives_each_strobe_once():
    async def script(ctx, dut, host, registers):
        for command in (
            Control.START | Control.LOAD_PROGRAM,
            Control.ABORT,
            Control.CLEAR_FAULT,
            Control(0),
        ):
            seen.clear()
            await host.write(ctx, address("CONTROL"), int(command))
            await ctx.tick().repeat(3)
            assert [s for s in seen if s] == [int(command)] * bool(command)

    seen = []
    dut = RegisterBlock(SMALL)
    host = AxiLiteHost(dut.bus, random.Random(2))

    async def bench(ctx):
        await script(ctx, dut, host, None)

    async def watch(ctx):
        async for *_, command in ctx.tick().sample(dut.command.as_value()):
            seen.append(command)

    simulate(dut, bench, watch)


@pytest.mark.parametrize("seed", range(3))
def test_counters_miss_nothing(seed):
    """Random events of every size, sparse and in every cycle."""
    rng = random.Random(seed)
    dut = Counters(SMALL)
    totals = dict.fromkeys(COUNTERS, 0)
    widths = {name: len(getattr(dut.events, name)) for name in COUNTERS}
    largest = {name: Events(SMALL).members[name].shape for name in COUNTERS}
    assert len(COUNTERS) <= 16 and largest["words"] == range(SMALL.arrays + 1)

    async def count(ctx, cycles, density):
        for _ in range(cycles):
            for name in COUNTERS:
                value = rng.getrandbits(widths[name]) if rng.random() < density else 0
                ctx.set(getattr(dut.events, name), value)
                totals[name] += value
            await ctx.tick()
        for name in COUNTERS:
            ctx.set(getattr(dut.events, name), 0)

    async def check(ctx):
        await ctx.tick().repeat(SWEEP_CYCLES)
        for index, name in enumerate(COUNTERS):
            ctx.set(dut.index, index)
            await ctx.tick()
            assert ctx.get(dut.data) == totals[name], name

    async def bench(ctx):
        for density in (0.3, 1.0):
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            totals.update(dict.fromkeys(COUNTERS, 0))
            await count(ctx, rng.randint(1, 300), density)
            await check(ctx)

    simulate(dut, bench)
