"""DDR behind an AXI4 port, and the rules of the bus, for tests in Amaranth's simulator."""

from __future__ import annotations

import random
from collections import deque

from amaranth.sim import Simulator

BEAT = 16
PAGE = 4096


def simulate(dut, bench, *background, cycles=20_000):
    """Run `bench` to its end with the `background` benches beside it; more than `cycles` is an
    error.

    Background benches are dropped wherever they are: they wait with plain `ctx.tick()` or
    `.sample()` only.
    """
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    finished = []

    async def foreground(ctx):
        await bench(ctx)
        finished.append(True)

    async def watch(ctx):
        for _ in range(cycles):
            await ctx.tick()
        assert finished, f"not finished within {cycles} cycles"

    sim.add_testbench(foreground)
    sim.add_testbench(watch, background=True)
    for other in background:
        sim.add_testbench(other, background=True)
    sim.run()


async def send(ctx, stream, payload, rng=None, stall=0.0):
    """One transfer into `stream`, after a random pause."""
    while rng is not None and rng.random() < stall:
        await ctx.tick()
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    while not (await ctx.tick().sample(stream.ready))[-1]:
        pass
    ctx.set(stream.valid, 0)


def pulses(signal, counts, key):
    """Background bench that adds the cycles in which `signal` is 1 to counts[key]."""
    counts[key] = 0

    async def bench(ctx):
        async for *_, value in ctx.tick().sample(signal):
            counts[key] += value

    return bench


class AxiMemory:
    """Memory with a window at `base`; stalls and latency from `rng`. Raises AssertionError on a
    breach of the bus rules.

    `bad` holds bus addresses whose beats are answered with an error; while `hang` is true nothing
    is accepted or answered. `reads` and `writes` list the bursts (bus address, beats) that were
    accepted.
    """

    def __init__(self, rng: random.Random, base: int, size: int, stall=0.3, latency=12):
        self.rng, self.base, self.stall, self.latency = rng, base, stall, latency
        self.data = bytearray(rng.randbytes(size))
        self.bad, self.hang = set(), False
        self.reads, self.writes = [], []

    def word(self, address):
        offset = address - self.base
        return int.from_bytes(self.data[offset : offset + BEAT], "little")

    def _willing(self):
        return not self.hang and self.rng.random() >= self.stall

    def _burst(self, address, length, size, kind):
        assert (size, kind) == (4, 1), "bursts must be incrementing beats of 16 bytes"
        assert address % BEAT == 0 and length < 16, (hex(address), length)
        last = address + length * BEAT
        assert address // PAGE == last // PAGE, f"burst crosses 4 KiB: {address:#x} + {length + 1}"
        assert self.base <= address and last + BEAT <= self.base + len(self.data), hex(address)
        return [address + i * BEAT for i in range(length + 1)]

    def read_channel(self, bus):
        async def bench(ctx):
            due, held, cycle, offered = deque(), None, 0, False
            while True:
                ctx.set(bus.arready, self._willing())
                offered = offered or bool(due and cycle >= due[0][1] and self._willing())
                if offered:
                    address, _, last = due[0]
                    ctx.set(bus.rdata, self.word(address))
                    ctx.set(bus.rresp, 2 if address in self.bad else 0)
                    ctx.set(bus.rlast, last)
                ctx.set(bus.rvalid, offered)
                command = (bus.araddr, bus.arlen, bus.arsize, bus.arburst)
                *_, valid, ready, taken, a, n, s, k = await ctx.tick().sample(
                    bus.arvalid, bus.arready, bus.rready, *command
                )
                assert held in (None, (valid, a, n)), "an offered read address must stay"
                held = (valid, a, n) if valid and not ready else None
                if valid and ready:
                    beats = self._burst(a, n, s, k)
                    self.reads.append((a, len(beats)))
                    at = cycle + self.rng.randint(1, self.latency)
                    due.extend((b, at, b == beats[-1]) for b in beats)
                if offered and taken:
                    due.popleft()
                    offered = False
                cycle += 1

        return bench

    def write_channel(self, bus):
        async def bench(ctx):
            bursts, answers = deque(), deque()
            held_address = held_data = None
            answering = False
            while True:
                ctx.set(bus.awready, self._willing())
                ctx.set(bus.wready, self._willing())
                answering = answering or bool(answers and self._willing())
                ctx.set(bus.bvalid, answering)
                ctx.set(bus.bresp, answers[0] if answering else 0)
                (
                    *_,
                    aw,
                    a,
                    n,
                    s,
                    k,
                    w,
                    d,
                    strobe,
                    last,
                    ready,
                    awready,
                    wready,
                ) = await ctx.tick().sample(
                    bus.awvalid,
                    bus.awaddr,
                    bus.awlen,
                    bus.awsize,
                    bus.awburst,
                    bus.wvalid,
                    bus.wdata,
                    bus.wstrb,
                    bus.wlast,
                    bus.bready,
                    bus.awready,
                    bus.wready,
                )
                assert held_address in (None, (aw, a, n)), "an offered write address must stay"
                held_address = (aw, a, n) if aw and not awready else None
                assert held_data in (None, (w, d, last)), "an offered beat must stay"
                held_data = (w, d, last) if w and not wready else None
                if aw and awready:
                    beats = self._burst(a, n, s, k)
                    self.writes.append((a, len(beats)))
                    bursts.append([deque(beats), 0])
                if w and wready:
                    assert bursts and strobe == (1 << BEAT) - 1
                    beats = bursts[0][0]
                    address = beats.popleft()
                    assert last == (not beats), "wlast must mark the last beat"
                    bursts[0][1] |= 2 if address in self.bad else 0
                    offset = address - self.base
                    self.data[offset : offset + BEAT] = d.to_bytes(BEAT, "little")
                    if last:
                        answers.append(bursts.popleft()[1])
                if answering and ready:
                    answers.popleft()
                    answering = False

        return bench


class AxiLiteHost:
    """The host's side of an AXI4-Lite slave: address and data in any order, late answers, all
    from `rng`.
    """

    def __init__(self, bus, rng: random.Random, stall=0.5):
        self.bus, self.rng, self.stall = bus, rng, stall

    def _willing(self):
        return self.rng.random() >= self.stall

    async def write(self, ctx, address, value, strobes=15):
        """One write; returns the response."""
        bus, address_due, data_due, answer = self.bus, True, True, None
        ctx.set(bus.awaddr, address)
        ctx.set(bus.wdata, value)
        ctx.set(bus.wstrb, strobes)
        while answer is None:
            ctx.set(bus.awvalid, address_due and (ctx.get(bus.awvalid) or self._willing()))
            ctx.set(bus.wvalid, data_due and (ctx.get(bus.wvalid) or self._willing()))
            ctx.set(bus.bready, self._willing())
            *_, aw, awready, w, wready, b, bready, response = await ctx.tick().sample(
                bus.awvalid, bus.awready, bus.wvalid, bus.wready, bus.bvalid, bus.bready, bus.bresp
            )
            address_due, data_due = (
                address_due and not (aw and awready),
                data_due and not (w and wready),
            )
            if b and bready:
                assert not address_due and not data_due, "an answer before the request"
                answer = response
        ctx.set(bus.bready, 0)
        return answer

    async def read(self, ctx, address):
        """One read; the response must be OKAY."""
        bus, due, answer = self.bus, True, None
        ctx.set(bus.araddr, address)
        while answer is None:
            ctx.set(bus.arvalid, due and (ctx.get(bus.arvalid) or self._willing()))
            ctx.set(bus.rready, self._willing())
            *_, ar, arready, r, rready, value, response = await ctx.tick().sample(
                bus.arvalid, bus.arready, bus.rvalid, bus.rready, bus.rdata, bus.rresp
            )
            due = due and not (ar and arready)
            if r and rready:
                assert not due and response == 0
                answer = value
        ctx.set(bus.rready, 0)
        return answer
