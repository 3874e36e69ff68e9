"""The store unit against a plain-Python meaning: packing, bursts, completion, window, errors,
stop.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from axi_model import AxiMemory, pulses, send, simulate

from espalier.spec.config import DE1_SOC, SMALL, TINY
from espalier.spec.isa import Store
from espalier.spec.registers import Fault
from espalier_hw.store import StoreUnit

BASE = 0x2000_0000
SIZE = 1 << 15
ODD = replace(DE1_SOC, name="ODD", arrays=3, lanes=24, vector_lanes=8, group=4)
CONFIGS = {c.name: c for c in (TINY, SMALL, DE1_SOC, ODD)}


KINDS = (Store.VALUES, Store.SUMS, Store.COLUMNS)


def chunk_bytes(config, elements, kind):
    """One chunk as spec.isa.Store lays it out."""
    size = {Store.VALUES: 2, Store.SUMS: 4, Store.COLUMNS: 1}[kind]
    raw = [(e & ((1 << 8 * size) - 1)).to_bytes(size, "little") for e in elements]
    if kind == Store.COLUMNS:
        groups = range(0, len(raw), config.group)
        raw = [b"".join(raw[g : g + config.group]).ljust(8, b"\0") for g in groups]
    return b"".join(raw)


def chunk_word(config, elements, kind):
    """The chunk with noise above the bits that count."""
    raw = chunk_bytes(config, elements, kind)
    return int.from_bytes(raw.ljust(4 * config.vector_lanes, b"\xa5"), "little")


def stored_bytes(config, chunks, kind):
    """What a VECTOR's chunks become in DDR."""
    raw = b"".join(chunk_bytes(config, chunk, kind) for chunk in chunks)
    return raw + bytes(-len(raw) % 16)


def random_stores(config, rng, number):
    """[(offset, kind, chunks)], many of them across a boundary of 4 KiB, none overlapping
    another.
    """
    stores, room = [], SIZE // number // 16 * 16
    for n in range(number):
        kind = rng.choice(KINDS)
        count = rng.choice((1, 2, rng.randint(1, 24)))
        chunks = [
            [rng.randint(-(1 << 15), (1 << 15) - 1) for _ in range(config.vector_lanes)]
            for _ in range(count)
        ]
        size = len(stored_bytes(config, chunks, kind))
        first = n * room
        page = -(-first // 4096) * 4096
        low = max(first, page - size) if page < first + room else first
        stores.append(
            (rng.randrange(low, max(low + 16, min(page, first + room - size)), 16), kind, chunks)
        )
    return stores


class Bench:
    """Sends commands and chunks with random pauses until all are completed or a fault is up."""

    def __init__(self, config, stores, seed, stall, size=SIZE):
        self.rng, self.config = random.Random(seed), config
        self.dut, self.stores, self.stall, self.size = StoreUnit(config), stores, stall, size
        self.memory = AxiMemory(self.rng, BASE, SIZE, stall)
        self.counts, self.fault = {}, None
        self.chunks_to_send = None  # all

    async def commands(self, ctx):
        for offset, kind, chunks in self.stores:
            payload = {"ddr": offset, "chunks": len(chunks), "kind": kind}
            await send(ctx, self.dut.commands, payload, self.rng, self.stall)

    async def chunks(self, ctx):
        for _, kind, chunks in self.stores:
            for chunk in chunks[: self.chunks_to_send]:
                payload = {"kind": kind, "data": chunk_word(self.config, chunk, kind)}
                await send(ctx, self.dut.chunks, payload, self.rng, self.stall)

    async def ended(self, ctx):
        while self.counts["completed"] < len(self.stores) and not ctx.get(self.dut.fault.valid):
            await ctx.tick()

    async def stopped(self, ctx):
        ctx.set(self.dut.stop, 1)
        while not ctx.get(self.dut.idle):
            await ctx.tick()

    def run(self, script=None, *background):
        dut = self.dut

        async def bench(ctx):
            ctx.set(dut.window_base, BASE)
            ctx.set(dut.window_size, self.size)
            await (script or self.ended)(ctx)
            self.fault = tuple(
                ctx.get(getattr(dut.fault, n)) for n in ("valid", "cause", "address")
            )
            await self.stopped(ctx)

        simulate(
            dut,
            bench,
            self.commands,
            self.chunks,
            self.memory.write_channel(dut.bus),
            pulses(dut.completed, self.counts, "completed"),
            pulses(dut.write_beat, self.counts, "write_beats"),
            *background,
        )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_memory_holds_what_was_sent_and_nothing_else_changed(name, seed):
    config, rng = CONFIGS[name], random.Random(seed)
    stores = random_stores(config, rng, 10)
    bench = Bench(config, stores, seed, stall=(0.0, 0.3, 0.6)[seed])
    wanted = bytearray(bench.memory.data)
    for offset, kind, chunks in stores:
        raw = stored_bytes(config, chunks, kind)
        wanted[offset : offset + len(raw)] = raw
    bench.run()
    assert bench.memory.data == wanted and bench.fault[0] == 0
    assert bench.counts["completed"] == len(stores)
    assert bench.counts["write_beats"] == sum(
        len(stored_bytes(config, c, k)) // 16 for _, k, c in stores
    )


CHUNKS = [[7] * 8] * 40


@pytest.mark.parametrize(
    "offset, size, bursts, fault",
    [
        (SIZE - 16 * 40, SIZE, 3, (0, 0, 0)),
        (0x1000, 0x1000 + 16 * 40, 3, (0, 0, 0)),
        (0x1000, 0x1000 + 16 * 39, 2, (1, Fault.OUTSIDE_WINDOW, 0x1200)),
        (0x1000, 0x1000 + 15, 0, (1, Fault.OUTSIDE_WINDOW, 0x1000)),
        (0x1008, SIZE, 0, (1, Fault.OUTSIDE_WINDOW, 0x1008)),
        (0xFFFF_FFF0, SIZE, 0, (1, Fault.OUTSIDE_WINDOW, 0xFFFF_FFF0)),
        (0, 0, 0, (1, Fault.OUTSIDE_WINDOW, 0)),
    ],
)
def test_window(offset, size, bursts, fault):
    """Bursts are checked one by one; the one that does not fit is not issued."""
    bench = Bench(SMALL, [(offset, Store.VALUES, CHUNKS)], seed=1, stall=0.2, size=size)
    bench.run()
    assert bench.fault[: 3 if fault[0] else 1] == fault[: 3 if fault[0] else 1]
    assert len(bench.memory.writes) == bursts


def test_an_error_response_names_its_burst():
    bench = Bench(
        SMALL, [(0x40, Store.VALUES, CHUNKS), (0x2000, Store.VALUES, CHUNKS)], seed=2, stall=0.2
    )
    bench.memory.bad.add(BASE + 0x2000 + 16 * 20)
    bench.run()
    assert bench.fault == (1, Fault.BUS_ERROR, 0x2100)


def test_completed_means_answered():
    """No completion while the response of the last burst is held back."""
    bench = Bench(SMALL, [(0, Store.VALUES, CHUNKS[:4])], seed=3, stall=0.0)

    async def script(ctx):
        await ctx.tick().until(bench.dut.write_beat & bench.dut.bus.wlast)
        bench.memory.hang = True
        await ctx.tick().repeat(50)
        assert bench.counts["completed"] == 0
        bench.memory.hang = False
        await bench.ended(ctx)

    bench.run(script)
    assert bench.counts["completed"] == 1


def test_stop_ends_the_burst_under_way_and_starts_no_other():
    bench = Bench(SMALL, [(0, Store.VALUES, CHUNKS)], seed=4, stall=0.5)

    async def script(ctx):
        await ctx.tick().until(bench.dut.bus.awvalid)
        await bench.stopped(ctx)
        assert len(bench.memory.writes) == 1 and bench.counts["write_beats"] == 16
        await ctx.tick().repeat(100)

    bench.run(script)
    assert len(bench.memory.writes) == 1


def test_no_burst_starts_before_its_data_are_there():
    """The chunks stop coming in the middle of the second burst: the bus is left alone."""
    bench = Bench(SMALL, [(0, Store.VALUES, CHUNKS)], seed=6, stall=0.0)
    bench.chunks_to_send = 31

    async def script(ctx):
        await ctx.tick().repeat(300)
        assert bench.memory.writes == [(BASE, 16)] and ctx.get(bench.dut.idle)

    bench.run(script)


def test_a_full_burst_takes_eighteen_cycles():
    """One cycle to take the burst, one for the address, 16 for the data."""
    bench = Bench(SMALL, [(0, Store.VALUES, [[1] * 8] * 160)], seed=5, stall=0.0)
    beats = []

    async def clock(ctx):
        async for *_, beat in ctx.tick().sample(bench.dut.write_beat):
            beats.append(beat)

    bench.run(None, clock)
    first, last = beats.index(1), len(beats) - 1 - beats[::-1].index(1)
    assert last - first + 1 == 160 + 2 * 9
