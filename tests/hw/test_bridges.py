"""What the bridges' docstrings promise in cycles, and the reset that drains first."""

from collections import deque

import pytest
from axi_model import simulate

from espalier_hw.bridges.reset import RESET_CYCLES, DrainedReset
from espalier_hw.bridges.sdram import SdramBridge

BURSTS, BEATS, LATENCY = 12, 16, 30


def port_memory(port, latency=LATENCY):
    """A port that never waits and answers `latency` cycles after the command, in order."""

    async def bench(ctx):
        due, cycle = deque(), 0
        while True:
            valid = bool(due) and due[0][0] <= cycle
            ctx.set(port.readdatavalid, valid)
            if valid:
                ctx.set(port.readdata, due.popleft()[1])
            *_, read, address, beats = await ctx.tick().sample(
                port.read, port.address, port.burstcount
            )
            if read:
                due.extend((cycle + latency, address // 16 + i) for i in range(beats))
            cycle += 1

    return bench


async def _ask(ctx, axi, channel, bursts):
    """Offers bursts of 16 beats, one after the other."""
    valid, ready = getattr(axi, channel + "valid"), getattr(axi, channel + "ready")
    ctx.set(valid, 1)
    ctx.set(getattr(axi, channel + "len"), BEATS - 1)
    for burst in range(bursts):
        ctx.set(getattr(axi, channel + "addr"), burst * BEATS * 16)
        while not (await ctx.tick().sample(ready))[-1]:
            pass
    ctx.set(valid, 0)


def test_reads_move_a_beat_a_cycle():
    """12 bursts of 16 beats take their beats and the way there and back, not a cycle more."""
    dut = SdramBridge()
    axi = dut.axi

    async def reads(ctx):
        await _ask(ctx, axi, "ar", BURSTS)

    async def bench(ctx):
        ctx.set(axi.rready, 1)
        taken, cycles = [], 0
        while len(taken) < BURSTS * BEATS:
            *_, valid, data, last = await ctx.tick().sample(axi.rvalid, axi.rdata, axi.rlast)
            cycles += 1
            if valid:
                assert last == (len(taken) % BEATS == BEATS - 1)
                taken.append(data)
        assert taken == list(range(BURSTS * BEATS))
        assert cycles == BURSTS * BEATS + LATENCY + 2
        assert ctx.get(dut.drained)

    simulate(dut, bench, reads, port_memory(dut.port))


def test_writes_move_a_beat_a_cycle():
    """Of 17 cycles a burst takes 16; its answer comes once the port has its last beat."""
    dut = SdramBridge()
    axi, port = dut.axi, dut.port
    seen = []

    async def addresses(ctx):
        await _ask(ctx, axi, "aw", BURSTS)

    async def watch(ctx):
        async for *_, write, data in ctx.tick().sample(port.write, port.writedata):
            if write:
                seen.append(data)

    async def bench(ctx):
        ctx.set(axi.bready, 1)
        ctx.set(axi.wvalid, 1)
        answers = sent = cycles = 0
        while answers < BURSTS:
            ctx.set(axi.wdata, sent)
            *_, ready, answered = await ctx.tick().sample(axi.wready, axi.bvalid)
            cycles += 1
            sent += ready
            answers += answered
            assert len(seen) >= answers * BEATS
        assert seen == list(range(BURSTS * BEATS))
        assert cycles == BURSTS * (BEATS + 1) + 2

    simulate(dut, bench, addresses, watch)


def test_reads_and_writes_share_the_port():
    """While bursts are written, reads lose a cycle of the port a command and nothing else."""
    dut = SdramBridge()
    axi = dut.axi
    taken = []

    async def reads(ctx):
        await _ask(ctx, axi, "ar", BURSTS)

    async def writes(ctx):
        await _ask(ctx, axi, "aw", BURSTS)

    async def take(ctx):
        async for *_, valid, data in ctx.tick().sample(axi.rvalid, axi.rdata):
            if valid:
                taken.append(data)

    async def bench(ctx):
        for ready in (axi.rready, axi.bready, axi.wvalid):
            ctx.set(ready, 1)
        for _ in range(BURSTS * (BEATS + 2) + LATENCY):
            await ctx.tick()
        assert taken == list(range(BURSTS * BEATS))

    simulate(dut, bench, reads, writes, take, port_memory(dut.port))


async def _reset_after(ctx, dut, limit):
    """Cycles from a request to `reset`; `hold` must be there before."""
    for cycle in range(limit):
        if ctx.get(dut.reset):
            return cycle
        if cycle > 1:
            assert ctx.get(dut.hold)
        await ctx.tick()
    raise AssertionError(f"no reset within {limit} cycles")


@pytest.mark.parametrize("answers", [True, False])
def test_reset_waits_for_the_drain_but_not_for_ever(answers):
    dut = DrainedReset(patience=50)

    async def bench(ctx):
        assert ctx.get(dut.reset) and ctx.get(dut.hold)
        await ctx.tick().repeat(RESET_CYCLES + 2)
        assert not ctx.get(dut.reset) and not ctx.get(dut.hold)
        ctx.set(dut.request, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.hold) and not ctx.get(dut.reset)
        ctx.set(dut.drained, answers)
        assert await _reset_after(ctx, dut, 60) == (1 if answers else 32)
        await ctx.tick().repeat(100)
        assert ctx.get(dut.reset), "reset lasts as long as the request"
        ctx.set(dut.request, 0)
        await ctx.tick().repeat(RESET_CYCLES - 1)
        assert ctx.get(dut.reset), "and a while longer"
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.reset) and not ctx.get(dut.hold)

    simulate(dut, bench)
