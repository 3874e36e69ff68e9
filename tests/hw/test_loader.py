"""The loader against spec.memory: every write of every memory, bursts, window, errors."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from axi_model import AxiMemory, pulses, send, simulate

from espalier.spec.config import DE1_SOC, SMALL, TINY
from espalier.spec.memory import QUAD_BITS, Memory, beats, items_per_address
from espalier.spec.registers import Fault
from espalier_hw.loader import Loader

BASE = 0x3000_0000
SIZE = 1 << 16
ODD = replace(DE1_SOC, name="ODD", arrays=3, lanes=24, vector_lanes=8, group=4)
"""Sizes that are no powers of two."""
CONFIGS = {c.name: c for c in (TINY, SMALL, DE1_SOC, ODD)}


def expected_writes(config, window, memory, address, count, ddr):
    """What a LOAD writes, in order, straight from spec.memory's text."""

    def words(array):
        start = ddr + array * 16 * beats(config, memory, count) // config.arrays
        for beat in range(beats(config, memory, count)):
            yield int.from_bytes(window[start + beat * 16 : start + beat * 16 + 16], "little")

    if memory is Memory.WEIGHTS:
        quads = config.lanes // 4
        for array in range(config.arrays):
            source = words(array)
            numbers = range(count * quads)
            for first in range(0, count * quads, config.quads_per_beat):
                beat = next(source)
                for i, number in enumerate(numbers[first : first + config.quads_per_beat]):
                    quad = beat >> (QUAD_BITS * i) & ((1 << QUAD_BITS) - 1)
                    yield array, address + number // quads, number % quads, quad
    elif memory is Memory.PROGRAM:
        source = words(0)
        for i in range(count):
            yield address + i, next(source)
    else:
        arrays = config.arrays if memory is Memory.DESCRIPTORS else 1
        for array in range(arrays):
            source = words(array)
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


def record(dut, rng, stall, seen, weights):
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
        samples = (
            w.valid,
            w.array,
            w.address,
            w.first,
            w.count,
            w.quads,
            p.valid,
            p.address,
            p.data,
        )
        async for *_, wv, array, address, first, count, quads, pv, pa, pd in ctx.tick().sample(
            *samples
        ):
            if pv:
                seen.append((pa, pd))
            for i in range(count if wv else 0):
                number = address * (dut._config.lanes // 4) + first + i
                q = dut._config.lanes // 4
                weights.append((array, number // q, number % q, quads[i]))

    return items, strobes


COMPLETED = ("completed", "weights_completed")


def request(dut, memory, address, count, ddr):
    """The stream and the command of a LOAD."""
    command = {"address": address, "count": count, "ddr": ddr}
    if memory is Memory.WEIGHTS:
        return dut.weight_commands, command
    return dut.commands, {"memory": memory, **command}


def run_loads(config, loads, seed, stall, size=SIZE, prepare=None):
    """Send `loads`, wait for their completion or a fault; returns (memory, writes seen, event
    counts, result). Writes of weights are apart, behind all others: they have a channel of their
    own.
    """
    rng = random.Random(seed)
    dut = Loader(config)
    memory = AxiMemory(rng, BASE, size, stall)
    if prepare is not None:
        prepare(memory)
    seen, weights, counts, result = [], [], {}, {}

    async def bench(ctx):
        ctx.set(dut.window_base, BASE)
        ctx.set(dut.window_size, size)
        for load in loads:
            stream, command = request(dut, *load)
            ctx.set(stream.payload, command)
            ctx.set(stream.valid, 1)
            while not (await ctx.tick().sample(stream.ready))[2]:
                if ctx.get(dut.fault.valid):
                    break
            ctx.set(stream.valid, 0)
        while sum(counts[name] for name in COMPLETED) < len(loads) and not ctx.get(dut.fault.valid):
            await ctx.tick()
        result["fault"] = tuple(
            ctx.get(getattr(dut.fault, n)) for n in ("valid", "cause", "address")
        )
        ctx.set(dut.stop, 1)
        while not ctx.get(dut.idle):
            await ctx.tick()

    simulate(
        dut,
        bench,
        memory.read_channel(dut.bus),
        *record(dut, rng, stall / 2, seen, weights),
        *(pulses(getattr(dut, name), counts, name) for name in COMPLETED),
        pulses(dut.read_beat, counts, "read_beats"),
    )
    counts["completed"] += counts["weights_completed"]
    return memory, seen + weights, counts, result


def random_loads(config, rng, number):
    """LOADs of every kind with random sizes, many of them near a boundary of 4 KiB."""
    loads = []
    for _ in range(number):
        target = rng.choice(list(Memory))
        limit = {Memory.WEIGHTS: 12, Memory.PARAMETERS: 40}.get(target, 24)
        count = rng.randint(1, limit)
        size = beats(config, target, count) * 16
        ddr = rng.choice(
            [rng.randrange(0, SIZE - size, 16), 4096 * rng.randint(1, 8) - 16 * rng.randint(0, 12)]
        )
        loads.append((target, rng.randint(0, 50), count, ddr))
    return loads


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_writes_are_those_of_the_format(name, seed):
    config = CONFIGS[name]
    loads = random_loads(config, random.Random(seed), 12)
    memory, seen, counts, result = run_loads(config, loads, seed, stall=(0.0, 0.3, 0.6)[seed])
    window = bytes(memory.data)
    ordered = sorted(loads, key=lambda load: load[0] is Memory.WEIGHTS)
    wanted = [w for load in ordered for w in expected_writes(config, window, *load)]
    assert seen == wanted
    assert counts["completed"] == len(loads)
    assert counts["read_beats"] == sum(beats(config, load[0], load[2]) for load in loads)
    assert result["fault"][0] == 0


@pytest.mark.parametrize(
    "offset, size, bursts, fault",
    [
        (SIZE - 16 * 40, SIZE, 3, (0, 0, 0)),
        (0x1000, 0x1000 + 16 * 40, 3, (0, 0, 0)),
        (0x1000, 0x1000 + 16 * 39, 2, (1, Fault.OUTSIDE_WINDOW, 0x1200)),
        (0x1000, 0x1000 + 15, 0, (1, Fault.OUTSIDE_WINDOW, 0x1000)),
        (0x1FF0, 0x2000, 1, (1, Fault.OUTSIDE_WINDOW, 0x2000)),
        (0x1008, SIZE, 0, (1, Fault.OUTSIDE_WINDOW, 0x1008)),
        (0xFFFF_FFF0, SIZE, 0, (1, Fault.OUTSIDE_WINDOW, 0xFFFF_FFF0)),
        (0, 0, 0, (1, Fault.OUTSIDE_WINDOW, 0)),
    ],
)
def test_window(offset, size, bursts, fault):
    """Bursts are checked one by one; the one that does not fit is not issued."""
    memory, _, counts, result = run_loads(
        SMALL, [(Memory.VECTOR, 0, 80, offset)], 1, 0.2, size=size
    )
    assert result["fault"][: 3 if fault[0] else 1] == fault[: 3 if fault[0] else 1]
    assert len(memory.reads) == bursts and counts["completed"] == (not fault[0])


def test_an_error_response_names_its_burst():
    loads = [(Memory.VECTOR, 0, 40, 0x40), (Memory.WEIGHTS, 0, 12, 0x2000)]
    _, _, counts, result = run_loads(
        SMALL, loads, 2, 0.2, prepare=lambda memory: memory.bad.add(BASE + 0x2000 + 16 * 18)
    )
    assert result["fault"] == (1, Fault.BUS_ERROR, 0x2100) and counts["completed"] <= 1


def test_read_data_are_never_refused():
    """A slow taker of items holds the bursts back, not the data on the bus."""
    dut, memory = Loader(SMALL), AxiMemory(random.Random(0), BASE, SIZE, stall=0.0)
    refused, counts = [], {}

    async def bench(ctx):
        ctx.set(dut.window_base, BASE)
        ctx.set(dut.window_size, SIZE)
        await send(ctx, *request(dut, Memory.PARAMETERS, 0, 1024, 0))
        await ctx.tick().repeat(600)
        assert counts["beats"] >= 28, "bursts must run ahead"
        ctx.set(dut.items.ready, 1)
        await ctx.tick().until(dut.completed)
        assert not any(refused)

    async def watch(ctx):
        async for *_, valid, ready in ctx.tick().sample(dut.bus.rvalid, dut.bus.rready):
            refused.append(valid and not ready)

    simulate(
        dut, bench, watch, memory.read_channel(dut.bus), pulses(dut.read_beat, counts, "beats")
    )


@pytest.mark.parametrize("seed", range(3))
def test_stop_drains_what_is_in_flight_and_asks_for_nothing_more(seed):
    rng = random.Random(seed)
    dut, memory = Loader(SMALL), AxiMemory(rng, BASE, SIZE, 0.4, latency=40)
    counts = {}

    async def bench(ctx):
        ctx.set(dut.window_base, BASE)
        ctx.set(dut.window_size, SIZE)
        await send(ctx, *request(dut, Memory.WEIGHTS, 0, 900, 0))
        await ctx.tick().repeat(rng.randint(8, 40))
        memory.hang = seed == 1
        ctx.set(dut.stop, 1)
        before = len(memory.reads)
        await ctx.tick().repeat(60)
        memory.hang = False
        await ctx.tick().until(dut.idle)
        issued = len(memory.reads)
        assert counts["beats"] == sum(beats for _, beats in memory.reads)
        await ctx.tick().repeat(200)
        assert len(memory.reads) == issued > 0
        assert issued <= before + 2, "one being taken and one being offered when `stop` came"

    simulate(dut, bench, memory.read_channel(dut.bus), pulses(dut.read_beat, counts, "beats"))


@pytest.mark.parametrize(
    "target, count, cycles_a_beat, latency",
    [(Memory.WEIGHTS, 192, 1, 50), (Memory.PARAMETERS, 256, 2, 20)],
)
def test_bursts_ahead_hide_the_latency(target, count, cycles_a_beat, latency):
    """The first beat comes late and all others without a pause."""
    memory = AxiMemory(random.Random(0), BASE, SIZE, stall=0.0)
    memory.rng.randint = lambda low, high: high
    memory.latency = latency
    dut, moved = Loader(SMALL), []

    async def bench(ctx):
        ctx.set(dut.window_base, BASE)
        ctx.set(dut.window_size, SIZE)
        ctx.set(dut.items.ready, 1)
        await send(ctx, *request(dut, target, 0, count, 0))
        while not (ctx.get(dut.completed) or ctx.get(dut.weights_completed)):
            moved.append(ctx.get(dut.weights.valid) or ctx.get(dut.items.valid))
            await ctx.tick()

    simulate(dut, bench, memory.read_channel(dut.bus))
    expected = beats(SMALL, target, count) * cycles_a_beat
    first = moved.index(1)
    assert first < latency + 16 and len(moved) - first <= expected * 1.02 + 4
