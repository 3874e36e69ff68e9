"""The loader against spec.memory: every write of every memory, bursts, window, errors."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from axi_model import AxiMemory, pulses, simulate

from espalier.spec.config import DE1_SOC, SMALL, TINY
from espalier.spec.memory import QUAD_BITS, Memory, beats, items_per_address
from espalier.spec.registers import Fault
from espalier_hw.loader import Loader

BASE = 0x3000_0000
SIZE = 1 << 16
ODD = replace(DE1_SOC, name="ODD", arrays=3, lanes=24, vector_lanes=12, group=4)
"""Sizes that are no powers of two."""
CONFIGS = {c.name: c for c in (TINY, SMALL, DE1_SOC, ODD)}


def expected_writes(config, window, memory, address, count, ddr):
    """What a LOAD writes, in order, straight from spec.memory's text."""
    def words(array, bits):
        start = ddr + array * 16 * beats(config, memory, count) // config.arrays
        for beat in range(beats(config, memory, count)):
            yield int.from_bytes(window[start + beat * 16 : start + beat * 16 + 16], "little")

    if memory is Memory.WEIGHTS:
        quads = config.lanes // 4
        for array in range(config.arrays):
            source = words(array, None)
            numbers = range(count * quads)
            for first in range(0, count * quads, config.quads_per_beat):
                beat = next(source)
                for i, number in enumerate(numbers[first : first + config.quads_per_beat]):
                    quad = beat >> (QUAD_BITS * i) & ((1 << QUAD_BITS) - 1)
                    yield array, address + number // quads, number % quads, quad
    elif memory is Memory.PROGRAM:
        source = words(0, None)
        for i in range(count):
            yield address + i, next(source)
    else:
        arrays = config.arrays if memory is Memory.DESCRIPTORS else 1
        for array in range(arrays):
            source = words(array, None)
            for i in range(count):
                if i % 2 == 0:
                    beat = next(source)
                data = beat >> (64 * (i % 2)) & ((1 << 64) - 1)
                yield (int(memory), *_place(config, memory, address, array, i), data)


def _place(config, memory, address, array, i):
    """(address, part, array) of item i."""
    if memory is Memory.ACTIVATIONS:
        return address + i // config.arrays, 0, i % config.arrays
    per = items_per_address(config, memory)
    return address + i // per, i % per, array


def record(dut, rng, stall, seen):
    """Background benches that note every write."""
    async def items(ctx):
        while True:
            ctx.set(dut.items.ready, rng.random() >= stall)
            *_, valid, ready, p = await ctx.tick().sample(
                dut.items.valid, dut.items.ready, dut.items.payload
            )
            if valid and ready:
                seen.append((p.memory, p.address, p.part, p.array, p.data))

    async def strobes(ctx):
        w, p = dut.weights, dut.program
        samples = (w.valid, w.array, w.address, w.first, w.count, w.quads, p.valid, p.address, p.data)
        async for *_, wv, array, address, first, count, quads, pv, pa, pd in ctx.tick().sample(*samples):
            if pv:
                seen.append((pa, pd))
            for i in range(count if wv else 0):
                number = address * (dut._config.lanes // 4) + first + i
                q = dut._config.lanes // 4
                seen.append((array, number // q, number % q, quads[i]))

    return items, strobes


def run_loads(config, loads, seed, stall, size=SIZE, prepare=None, until=None):
    """Send `loads` and wait for their completion (or `until`); returns (memory, dut observations)."""
    rng = random.Random(seed)
    dut = Loader(config)
    memory = AxiMemory(rng, BASE, size, stall)
    if prepare is not None:
        prepare(memory)
    seen, counts, result = [], {}, {}

    async def bench(ctx):
        ctx.set(dut.window_base, BASE)
        ctx.set(dut.window_size, size)
        for target, address, count, ddr in loads:
            ctx.set(dut.commands.payload, {
                "memory": target, "address": address, "count": count, "ddr": ddr
            })
            ctx.set(dut.commands.valid, 1)
            while not (await ctx.tick().sample(dut.commands.ready))[2]:
                if ctx.get(dut.fault.valid):
                    break
            ctx.set(dut.commands.valid, 0)
        while counts["completed"] < len(loads) and not ctx.get(dut.fault.valid):
            await ctx.tick()
        result["fault"] = tuple(ctx.get(getattr(dut.fault, n)) for n in ("valid", "cause", "address"))
        ctx.set(dut.stop, 1)
        while not ctx.get(dut.idle):
            await ctx.tick()
        result["seen"] = len(seen)

    simulate(
        dut, bench, memory.read_channel(dut.bus), *record(dut, rng, stall / 2, seen),
        pulses(dut.completed, counts, "completed"), pulses(dut.read_beat, counts, "read_beats"),
    )
    return memory, seen, counts, result


def random_loads(config, rng, number):
    """LOADs of every kind with random sizes, many of them near a boundary of 4 KiB."""
    loads = []
    for _ in range(number):
        target = rng.choice(list(Memory))
        limit = {Memory.WEIGHTS: 12, Memory.PARAMETERS: 40}.get(target, 24)
        count = rng.randint(1, limit)
        size = beats(config, target, count) * 16
        ddr = rng.choice([rng.randrange(0, SIZE - size, 16), 4096 * rng.randint(1, 8) - 16 * rng.randint(0, 12)])
        loads.append((target, rng.randint(0, 50), count, ddr))
    return loads


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_writes_are_those_of_the_format(name, seed):
    config = CONFIGS[name]
    loads = random_loads(config, random.Random(seed), 12)
    memory, seen, counts, result = run_loads(config, loads, seed, stall=(0.0, 0.3, 0.6)[seed])
    window = bytes(memory.data)
    wanted = [w for load in loads for w in expected_writes(config, window, *load)]
    assert seen == wanted
    assert counts["completed"] == len(loads)
    assert counts["read_beats"] == sum(beats(config, load[0], load[2]) for load in loads)
    assert result["fault"][0] == 0
