"""EXPANDs, in the loader, against what the reference machine's memories hold afterwards."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from axi_model import AxiMemory, pulses, send, simulate

from espalier.spec import expansion
from espalier.spec.config import DE1_SOC, SMALL, TINY
from espalier.spec.isa import Expand
from espalier.spec.memory import ENTRY, Memory, beats
from espalier.spec.registers import Fault
from espalier_hw.expander import Expander
from espalier_hw.interfaces import EXPAND_FIELDS
from espalier_hw.loader import Loader
from espalier_sim.benches.expands import draw_expand
from espalier_sim.reference.memories import Memories, expand_rows

BASE = 0x3000_0000
SIZE = 1 << 16
ODD = replace(DE1_SOC, name="ODD", arrays=3, lanes=24, vector_lanes=8, group=4)
"""Sizes that are no powers of two."""
WIDE = replace(DE1_SOC, name="WIDE", arrays=4, vector_lanes=32, group=8)
"""Chunks of two beats of column inputs: rows that end with unused beats."""
CONFIGS = {c.name: c for c in (TINY, SMALL, DE1_SOC, ODD, WIDE)}
UNWRITTEN = 99
ENTRY_BITS = sum(f.width for f in ENTRY.fields)


def random_expand(config, rng, most_writes=3000):
    """The fields of an EXPAND of not too many writes, and its tokens."""
    while True:
        f = draw_expand(config, rng, config.weight_depth)
        tokens = rng.choice((f["most"], rng.randint(1, f["most"])))
        if expansion.words(f, config, tokens) * config.arrays * config.lanes <= 4 * most_writes:
            return f, tokens


def shape(config, kind, *, heads=1, groups=1, most):
    """An EXPAND at address 0 from slot 0 on."""
    f = {"kind": kind, "address": 0, "most": most, "heads": heads, "groups": groups, "slot": 0}
    f["gap"] = 0
    return {**f, "slots": expansion.height(f, config, most)}


def command(f, tokens, ddr):
    """WEIGHTS_COMMAND of an EXPAND."""
    own = {name: f[name] for name in ("address", *EXPAND_FIELDS)}
    return {**own, "kind": f["kind"], "count": tokens, "ddr": ddr, "expand": 1}


def blank(config):
    """Memories in which nothing is written yet."""
    memories = Memories(config)
    memories.digits[:] = UNWRITTEN
    memories.entry_slots[:] = UNWRITTEN
    return memories


def row_data(rng, size):
    """Column inputs, and bytes at the limits."""
    return bytes(
        rng.choice((rng.randrange(256), 0x80, 0x88, 0x89, 0x77, 0x78)) for _ in range(size)
    )


class Bench:
    """Sends commands, keeps what is written as a `Memories` would."""

    def __init__(self, config, seed, stall, size=SIZE):
        self.config, self.rng, self.stall, self.size = config, random.Random(seed), stall, size
        self.dut = Loader(config)
        self.memory = AxiMemory(self.rng, BASE, SIZE, stall)
        self.memory.data[:] = row_data(self.rng, SIZE)
        self.written, self.counts = blank(config), {}
        self.cycles = []

    async def weights(self, ctx):
        w, cycle = self.dut.weights, 0
        ports = (w.valid, w.array, w.address, w.first, w.count, w.quads)
        async for *_, valid, array, address, first, count, quads in ctx.tick().sample(*ports):
            cycle += 1
            if not valid:
                continue
            self.cycles.append(cycle)
            for i in range(count):
                word, quad = divmod(
                    address * (self.config.lanes // 4) + first + i, self.config.lanes // 4
                )
                self._quad(array, word, quad, quads[i])

    def _quad(self, array, word, quad, value):
        for i in range(4):
            entry = ENTRY.unpack(value >> (ENTRY.width * i) & ((1 << ENTRY_BITS) - 1))
            self.written.digits[array, word, 4 * quad + i] = entry["digit"]
            self.written.entry_slots[array, word, 4 * quad + i] = entry["slot"]

    @property
    def completed(self):
        return self.counts["loads"] + self.counts["expands"]

    def run(self, commands):
        """Until all are completed, or a fault is up; returns the fault."""
        dut, fault = self.dut, []

        async def bench(ctx):
            ctx.set(dut.window_base, BASE)
            ctx.set(dut.window_size, self.size)
            ctx.set(dut.items.ready, 1)
            for payload in commands:
                stream = dut.commands if "memory" in payload else dut.weight_commands
                await send(ctx, stream, payload, self.rng, self.stall)
            while self.completed < len(commands) and not ctx.get(dut.fault.valid):
                await ctx.tick()
            fault.extend(ctx.get(getattr(dut.fault, n)) for n in ("valid", "cause", "address"))
            await ctx.tick().repeat(10)

        simulate(
            dut,
            bench,
            self.weights,
            self.memory.read_channel(dut.bus),
            pulses(dut.completed, self.counts, "loads"),
            pulses(dut.weights_completed, self.counts, "expands"),
            pulses(dut.read_beat, self.counts, "beats"),
            cycles=60_000,
        )
        return fault

    def expected(self, expands):
        """(memories, beats read) of EXPANDs (fields, tokens, DDR offset)."""
        memories, beats = blank(self.config), 0
        for f, tokens, ddr in expands:
            rows = expand_rows(self.memory.data, ddr, tokens, f, self.config)
            memories.expand(f, rows)
            beats += rows.size // 16
        return memories, beats

    def check(self, expands):
        memories, beats = self.expected(expands)
        assert (self.written.digits == memories.digits).all()
        assert (self.written.entry_slots == memories.entry_slots).all()
        assert self.counts["beats"] == beats


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_those_of_the_reference(name, seed):
    config, rng = CONFIGS[name], random.Random(100 + seed)
    bench = Bench(config, seed, stall=(0.0, 0.0, 0.4, 0.7)[seed])
    expands = []
    for _ in range(4):
        f, tokens = random_expand(config, rng)
        size = expansion.extent(f, config, tokens)
        expands.append((f, tokens, rng.randrange(0, SIZE - size, 16)))
    assert bench.run([command(*expand) for expand in expands])[0] == 0
    assert bench.completed == len(expands)
    bench.check(expands)


def loads_around(rng, expands):
    """EXPANDs among LOADs of items and of weights that lie elsewhere."""
    commands = []
    for expand in expands:
        for memory, count in ((Memory.VECTOR, rng.randint(1, 20)), (Memory.WEIGHTS, 1)):
            if rng.random() < 0.7:
                load = {"address": 0, "count": count, "ddr": 16 * rng.randrange(99)}
                items = {"memory": memory} if memory is not Memory.WEIGHTS else {}
                commands.append({**load, **items})
        commands.append(command(*expand))
    return commands


@pytest.mark.parametrize("seed", range(3))
def test_loads_and_expands_keep_their_order(seed):
    """The EXPAND behind a LOAD of the same weights wins, and each reads its own beats."""
    rng = random.Random(seed)
    bench = Bench(SMALL, seed, stall=(0.0, 0.3, 0.6)[seed])
    expands = []
    for _ in range(4):
        f, tokens = random_expand(SMALL, rng, most_writes=1000)
        expands.append(({**f, "address": 0}, tokens, 16 * rng.randrange(500)))
    commands = loads_around(rng, expands)
    commands += [command(*expands[0])]
    assert bench.run(commands)[0] == 0
    assert bench.completed == len(commands)
    memories, expanded = blank(SMALL), 0
    for payload in commands:
        expand = next((e for e in expands if command(*e) == payload), None)
        if expand is None:
            memory = Memory(payload.get("memory", Memory.WEIGHTS))
            count, ddr = payload["count"], payload["ddr"]
            n = beats(SMALL, memory, count)
            memories.load(memory, 0, count, bytes(bench.memory.data[ddr : ddr + 16 * n]))
        else:
            f, tokens, ddr = expand
            rows = expand_rows(bench.memory.data, ddr, tokens, f, SMALL)
            memories.expand(f, rows)
            n = rows.size // 16
        expanded += n
    assert (bench.written.digits == memories.digits).all()
    assert (bench.written.entry_slots == memories.entry_slots).all()
    assert bench.counts["beats"] == expanded


@pytest.mark.parametrize("kind", Expand)
def test_writes_follow_each_other(kind):
    """COLUMNS: an item and plane a cycle; ROWS: a quad and plane a cycle, and one cycle more from
    four tokens to the next."""
    f = shape(DE1_SOC, kind, heads=2, groups=4, most=32)
    bench = Bench(DE1_SOC, 1, stall=0.0)
    assert bench.run([command(f, 32, 0)])[0] == 0
    bench.check([(f, 32, 0)])
    writes = 32 * 8 * 2
    if kind == Expand.ROWS:
        writes = (32 // 4) * 64 * 2
    assert len(bench.cycles) == writes
    pauses = 32 // 4 - 1 if kind == Expand.ROWS else 0
    assert bench.cycles[-1] - bench.cycles[0] == writes - 1 + pauses


def test_completed_follows_the_last_write():
    f = shape(SMALL, Expand.ROWS, most=3)
    bench = Bench(SMALL, 1, stall=0.0)
    seen = []

    async def watch(ctx):
        async for *_, completed, valid in ctx.tick().sample(
            bench.dut.weights_completed, bench.dut.weights.valid
        ):
            seen.append((completed, valid))

    bench.weights = watch
    assert bench.run([command(f, 3, 0)])[0] == 0
    done = [completed for completed, _ in seen].index(1)
    assert sum(valid for _, valid in seen[:done]) == 4 * 8 * 2
    assert not any(valid for _, valid in seen[done:])


@pytest.mark.parametrize("kind", Expand)
def test_rows_outside_the_window_are_not_read(kind):
    f = shape(SMALL, kind, groups=2, most=16)
    bench = Bench(SMALL, 1, stall=0.2, size=0x1000)
    fault = bench.run([command(f, 16, 0xF80)])
    assert fault == [1, Fault.OUTSIDE_WINDOW, 0x1000]
    assert bench.completed == 0


def test_short_rows_do_not_overtake_those_being_read():
    """Rows come in a little faster than they are read: the transposer holds them back."""
    f = shape(SMALL, Expand.ROWS, groups=2, most=160)
    bench = Bench(SMALL, 1, stall=0.0)
    assert bench.run([command(f, 160, 0)])[0] == 0
    bench.check([(f, 160, 0)])


def test_an_expand_ends_with_the_last_beat_of_its_rows():
    """Even when nothing of that beat is used, and it comes long after the last write."""
    dut, f = Expander(WIDE), shape(WIDE, Expand.COLUMNS, most=1)

    async def bench(ctx):
        ctx.set(dut.commands.payload, command(f, 1, 0))
        ctx.set(dut.commands.valid, 1)
        await send(ctx, dut.beats, 0)
        await ctx.tick().repeat(50)
        assert not ctx.get(dut.commands.ready)
        await send(ctx, dut.beats, 0)
        await ctx.tick().until(dut.commands.ready)

    simulate(dut, bench)


def test_a_load_does_not_wait_for_an_expand():
    """Items asked for while an EXPAND is under way come at once, and it goes on as before."""
    f = shape(SMALL, Expand.ROWS, groups=4, most=64)
    bench = Bench(SMALL, 1, stall=0.0)
    ends = {}

    async def watch(ctx):
        cycle = 0
        async for *_, load, expand in ctx.tick().sample(
            bench.dut.completed, bench.dut.weights_completed
        ):
            cycle += 1
            for name, pulse in (("load", load), ("expand", expand)):
                if pulse:
                    ends[name] = cycle

    bench.weights = watch
    load = {"memory": Memory.VECTOR, "address": 0, "count": 16, "ddr": 0}
    assert bench.run([command(f, 64, 0), load])[0] == 0
    assert ends["load"] < 150 and ends["expand"] > 64 // 4 * 32 * 2
