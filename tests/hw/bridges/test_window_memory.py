"""Block RAM behind AXI4, used by two masters at once: every beat where it belongs, in order, and
fast enough."""

import random
from collections import deque

import pytest
from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, connect, flipped
from axi_model import simulate

from espalier_hw.bridges.axi_ram import BANK_BEATS, AxiRam
from espalier_hw.bridges.axi_share import AxiShare
from espalier_hw.interfaces import Axi4

BYTES = 8192
BANKED_BYTES = 3 * 16 * BANK_BEATS // 2  # a whole bank and half of one
BEAT = 16
OKAY, SLAVE_ERROR = 0, 2


class Shared(Component):
    """Two ports to one memory."""

    first: In(Axi4())
    second: In(Axi4())

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = AxiRam(BYTES)
        m.submodules.share = share = AxiShare()
        connect(m, flipped(self.first), share.first)
        connect(m, flipped(self.second), share.second)
        connect(m, share.slave, ram.bus)
        return m


async def channel(ctx, bus, prefix, payload, rng, stall):
    """One transfer on a channel that the master drives; `payload` by field."""
    while rng.random() < stall:
        await ctx.tick()
    for name, value in payload.items():
        ctx.set(getattr(bus, prefix + name), value)
    ctx.set(getattr(bus, f"{prefix}valid"), 1)
    while not (await ctx.tick().sample(getattr(bus, f"{prefix}ready")))[-1]:
        pass
    ctx.set(getattr(bus, f"{prefix}valid"), 0)


def burst(address, beats):
    return {"addr": address, "len": beats - 1, "size": 4, "burst": 1}


class Master:
    """Random bursts in its own half of the memory, many in flight; knows what must be there."""

    def __init__(self, bus, base, rng, stall, bursts):
        self.bus, self.rng, self.stall = bus, rng, stall
        self.plans = []
        for _ in range(bursts):
            beats = rng.choice((1, 1, 2, 5, 16))
            start = base + BEAT * rng.randrange(BYTES // 2 // BEAT - beats + 1)
            if start // 4096 == (start + BEAT * beats - 1) // 4096:
                self.plans.append((start, [rng.getrandbits(128) for _ in range(beats)]))
        self.reads, self.expected, self.finished = deque(), deque(), 0

    async def addresses(self, ctx):
        for start, words in self.plans:
            await channel(ctx, self.bus, "aw", burst(start, len(words)), self.rng, self.stall)

    async def words(self, ctx):
        for _, words in self.plans:
            for word in words:
                last = word is words[-1]
                payload = {"data": word, "strb": 0xFFFF, "last": last}
                await channel(ctx, self.bus, "w", payload, self.rng, self.stall)

    async def answers(self, ctx):
        """Responses; what is written is then asked for."""
        for start, words in self.plans:
            await self.take(ctx, "b", ("resp",), [(OKAY,)])
            self.reads.append((start, len(words)))

    async def asking(self, ctx):
        for _ in self.plans:
            while not self.reads:
                await ctx.tick()
            start, beats = self.reads.popleft()
            self.expected.append((start, beats))
            await channel(ctx, self.bus, "ar", burst(start, beats), self.rng, self.stall)

    async def reading(self, ctx):
        beats = [(s + BEAT * i, word) for s, words in self.plans for i, word in enumerate(words)]
        written, settled = [address for address, _ in beats], dict(beats)
        for _ in self.plans:
            while not self.expected:
                await ctx.tick()
            start, beats = self.expected.popleft()
            for i in range(beats):
                address = start + BEAT * i
                got = await self.take(ctx, "r", ("data", "last", "resp"))
                if written.count(address) == 1:  # else a later write may have come first
                    assert got[0] == settled[address], hex(address)
                assert got[1:] == (i == beats - 1, OKAY)
            self.finished += 1

    async def take(self, ctx, prefix, names, allowed=None):
        while self.rng.random() < self.stall:
            await ctx.tick()
        bus = self.bus
        ctx.set(getattr(bus, f"{prefix}ready"), 1)
        fields = [getattr(bus, prefix + name) for name in names]
        while True:
            *_, valid, value = await ctx.tick().sample(getattr(bus, f"{prefix}valid"), Cat(*fields))
            if valid:
                break
        ctx.set(getattr(bus, f"{prefix}ready"), 0)
        result, low = [], 0
        for field in fields:
            result.append(value >> low & ((1 << len(field)) - 1))
            low += len(field)
        assert allowed is None or tuple(result) in allowed, (prefix, result)
        return tuple(result)

    def benches(self):
        return self.addresses, self.words, self.answers, self.asking, self.reading


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_two_masters_never_lose_mix_or_reorder_a_beat(stall):
    rng = random.Random(int(10 * stall))
    dut = Shared()
    masters = [
        Master(dut.first, 0, rng, stall, 40),
        Master(dut.second, BYTES // 2, rng, stall, 40),
    ]

    async def bench(ctx):
        while any(master.finished < len(master.plans) for master in masters):
            await ctx.tick()

    simulate(dut, bench, *(b for master in masters for b in master.benches()), cycles=20_000)
    assert [(master.finished, len(master.expected)) for master in masters] == [(40, 0)] * 2


def test_reads_are_back_to_back():
    dut, beats = AxiRam(BYTES), 16 * 16
    rng = random.Random(0)

    async def asking(ctx):
        for n in range(16):
            await channel(ctx, dut.bus, "ar", burst(256 * n, 16), rng, 0)

    async def bench(ctx):
        ctx.set(dut.bus.rready, 1)
        cycles = taken = 0
        while taken < beats:
            taken += (await ctx.tick().sample(dut.bus.rvalid))[-1]
            cycles += 1
        assert cycles <= beats + 7

    simulate(dut, bench, asking)


def test_what_does_not_fit_is_an_error_and_changes_nothing():
    dut, rng = AxiRam(BYTES), random.Random(0)
    master = Master(dut.bus, 0, rng, 0.3, 0)

    async def write(ctx, address, word, strobes):
        await channel(ctx, dut.bus, "aw", burst(address, 1), rng, 0)
        await channel(ctx, dut.bus, "w", {"data": word, "strb": strobes, "last": 1}, rng, 0)
        return (await master.take(ctx, "b", ("resp",)))[0]

    async def read(ctx, address):
        await channel(ctx, dut.bus, "ar", burst(address, 1), rng, 0)
        return await master.take(ctx, "r", ("resp", "data"))

    async def bench(ctx):
        assert await write(ctx, 16, 7, 0xFFFF) == OKAY
        assert await write(ctx, 16, 8, 0x7FFF) == SLAVE_ERROR
        assert await write(ctx, BYTES + 16, 9, 0xFFFF) == SLAVE_ERROR
        assert await write(ctx, 0x8000_0010, 9, 0xFFFF) == SLAVE_ERROR
        assert await read(ctx, 16) == (OKAY, 7)
        assert (await read(ctx, BYTES))[0] == SLAVE_ERROR
        assert await read(ctx, 16) == (OKAY, 7)

    simulate(dut, bench)


def test_banks_are_one_memory():
    """The same place of every bank, written, then read."""
    dut, rng = AxiRam(BANKED_BYTES), random.Random(1)
    master = Master(dut.bus, 0, rng, 0.3, 0)
    places = [n * BEAT * BANK_BEATS // 2 + BEAT * i for n in range(3) for i in range(4)]
    words = {place: rng.getrandbits(128) for place in rng.sample(places, len(places))}

    async def bench(ctx):
        for place, word in words.items():
            await channel(ctx, dut.bus, "aw", burst(place, 1), rng, 0)
            payload = {"data": word, "strb": 0xFFFF, "last": 1}
            await channel(ctx, dut.bus, "w", payload, rng, 0)
            assert await master.take(ctx, "b", ("resp",)) == (OKAY,)
        for place, word in words.items():
            await channel(ctx, dut.bus, "ar", burst(place, 1), rng, 0)
            assert await master.take(ctx, "r", ("resp", "data")) == (OKAY, word), place

    simulate(dut, bench)
