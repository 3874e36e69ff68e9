"""The vector unit against a plain-Python meaning of VECTOR: random commands, loader items and
stalls."""

import random
from collections import deque
from dataclasses import replace
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from espalier.spec import numerics
from espalier.spec.config import SCALARS, TINY
from espalier.spec.isa import (
    MOST_GAIN,
    Combine,
    Finish,
    Function,
    Scale,
    Source,
    Store,
    Sums,
    reduction_address,
    reduction_target,
)
from espalier.spec.memory import PARAMETER, TABLE_ENTRY, Memory, depth, items_per_address
from espalier.spec.numerics import SHIFTS, TABLE_SEGMENTS, VALUE_MAX, VALUE_MIN, clip
from espalier_hw.interfaces import VECTOR_COMMAND, drained_bits
from espalier_hw.vector_reduce import Reducer
from espalier_hw.vector_unit import COMPLETION_CYCLES, RESULT_CYCLE, VectorUnit, command_cycles

SHALLOW = replace(
    TINY, name="SHALLOW", vector_depth=48, parameter_depth=80, sum_depth=48, column_depth=32
)
WIDE = replace(SHALLOW, name="WIDE", arrays=3, lanes=16, vector_lanes=16, group=8)
"""Two groups a chunk over three arrays."""
PLANES = {Source.DRAIN: 1, Source.DRAIN_PLANES: 2}
REDUCTIONS = (Sums.MAXIMUM, Sums.MASS, Sums.MOMENTS)


def quiet(config, **fields):
    """A VECTOR of one chunk that does nothing but what `fields` say."""
    command = {name: 0 for name, _ in VECTOR_COMMAND}
    return command | {"count": 1, "tail": config.vector_lanes - 1} | fields


def wrap(value, bits):
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def sat16(value):
    return clip(value, VALUE_MIN, VALUE_MAX)


class Meaning:
    """What VECTORs and loader items do, one after the other, in Python integers."""

    def __init__(self, config):
        self.config, lanes = config, config.vector_lanes
        self.vector = [[0] * lanes for _ in range(config.vector_depth)]
        self.sums = [[0] * lanes for _ in range(config.sum_depth)]
        self.parameters = [[None] * lanes for _ in range(config.parameter_depth)]
        self.tables = [None] * (config.tables * TABLE_SEGMENTS)
        self.columns, self.stored = [], []

    def item(self, memory, address, part, data):
        if memory is Memory.VECTOR:
            self.vector[address][4 * part : 4 * part + 4] = [
                wrap(data >> 16 * i, 16) for i in range(4)
            ]
        elif memory is Memory.SUMS:
            self.sums[address][2 * part : 2 * part + 2] = [
                wrap(data >> 32 * i, 27) for i in range(2)
            ]
        elif memory is Memory.PARAMETERS:
            self.parameters[address][part] = PARAMETER.unpack(data)
        else:
            self.tables[address] = TABLE_ENTRY.unpack(data)

    def execute(self, f, drain):
        """`drain()` gives (chunk, rows) of the next drain request."""
        results = []
        for i in range(f["count"]):
            total = self._total(f, i, drain)
            v = [self._value(f, i, lane, t) for lane, t in enumerate(total)]
            counts = f["tail"] + 1 if i == f["count"] - 1 else len(v)
            v[counts:] = [0] * (len(v) - counts)
            results += v[:counts]
            if f["write_vector"]:
                self.vector[f["vector_address"] + i] = v
            column = [clip(numerics.column_input(x), -127, 127) for x in v]
            if f["write_columns"]:
                word, array = divmod(i * self.config.chunk_groups, self.config.arrays)
                self.columns.append((array, f["column_address"] + word, column))
            if f["store"] != Store.NONE:
                sent = {Store.SUMS: total, Store.VALUES: v, Store.COLUMNS: column}
                self.stored.append((f["store"], sent[f["store"]]))

        if f["sums"] in REDUCTIONS:
            self._reduce(f, results)

    def _reduce(self, f, x):
        scalar, gain = reduction_target(f["sum_address"])
        if f["sums"] == Sums.MAXIMUM:
            result = numerics.maximum_scalar(max(x), gain)
        elif f["sums"] == Sums.MASS:
            mass = sum(clip(numerics.column_input(v), -127, 127) for v in x)
            result = numerics.mass_scalar(mass, gain)
        else:
            result = numerics.moments_scalar(sum(x), sum(v * v for v in x), len(x), gain)
        values = dict(zip(("multiplier", "shift", "bias"), result, strict=True))
        row = values | {"shift": SHIFTS.index(values["shift"])}
        self.parameters[self.config.first_scalar + scalar] = [row] * self.config.vector_lanes

    def _total(self, f, i, drain):
        t = [0] * self.config.vector_lanes
        if f["source"] == Source.OPERAND:
            t = list(self.vector[f["operand0"] + i])
        elif f["source"] in PLANES:
            for plane in reversed(range(PLANES[f["source"]])):
                chunk, rows = drain()
                assert chunk == f["drain"] + plane * f["plane_stride"] + i
                t = [a + 16**plane * b for a, b in zip(t, rows, strict=True)]
        if f["sums"] in (Sums.ADD, Sums.ACCUMULATE):
            t = [a + b for a, b in zip(t, self.sums[f["sum_address"] + i], strict=True)]
        t = [wrap(a, 27) for a in t]
        if f["sums"] in (Sums.ACCUMULATE, Sums.WRITE):
            self.sums[f["sum_address"] + i] = t
        return t

    def _value(self, f, i, lane, t):
        operand = [
            self.vector[(f[f"operand{k}"] + i) % self.config.vector_depth][lane] for k in range(3)
        ]
        if f["scale"]:
            scalar = f["scale"] == Scale.SCALAR
            chunk = self.config.first_scalar + f["parameters"] if scalar else f["parameters"] + i
            scale = numerics.scale_by_scalar if scalar else numerics.scale_sum
            row = self.parameters[chunk][lane]
            t = scale(t, row["multiplier"], SHIFTS[row["shift"]], row["bias"])
        v = sat16(t)
        if f["combine"] == Combine.ADD:
            v = sat16(v + operand[1])
        elif f["combine"] == Combine.MULTIPLY:
            v = sat16(numerics.multiply_values(v, operand[1]))
        elif f["combine"] == Combine.AMPLIFY:
            v = sat16(numerics.amplify(v, operand[1]))
        if f["function"] == Function.RELU:
            v = max(v, 0)
        elif f["function"] >= Function.TABLE0:
            address = (f["function"] - Function.TABLE0) * TABLE_SEGMENTS + numerics.table_segment(v)
            v = sat16(numerics.table_value(v, **self.tables[address]))
        if f["finish"] == Finish.INTERPOLATE:
            v = sat16(numerics.interpolate(v, operand[2], operand[0]))
        elif f["finish"] == Finish.ADD:
            v = sat16(v + operand[2])
        return v


def reads_and_writes(f):
    """Ranges of (memory, address) that a command reads and writes; no scalars, for which the unit
    waits by itself."""
    n = f["count"]

    def span(name, memory, wanted):
        return {(memory, f[name] + i) for i in range(n)} if wanted else set()

    reads = span("operand0", "v", f["source"] == Source.OPERAND or f["finish"])
    reads |= span("operand1", "v", f["combine"]) | span("operand2", "v", f["finish"])
    reads |= span("sum_address", "s", f["sums"] in (Sums.ADD, Sums.ACCUMULATE))
    writes = span("vector_address", "v", f["write_vector"])
    writes |= span("sum_address", "s", f["sums"] in (Sums.ACCUMULATE, Sums.WRITE))
    return reads, writes


class Bench:
    """Drives one unit: `play` runs commands and items at the same time and returns when everything
    has come out."""

    def __init__(self, config, latency, seed, *, command_rate=0.8, item_rate=0.8, store_rate=0.5):
        self.config, self.latency, self.rng = config, latency, random.Random(seed)
        self.rates = {"command": command_rate, "item": item_rate, "store": store_rate}
        self.dut = VectorUnit(config, latency)
        self.meaning = Meaning(config)
        self.drained, self.columns, self.stored = deque(), [], []
        self.issued, self.loading = [], False
        self.cycles = {"command": [], "taken": [], "completed": []}

    def run(self, *scripts):
        """Run `scripts` (functions of the context; one calls `play`) beside engine and monitors;
        then compare."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-8)

        for script in scripts:
            simulator.add_testbench(script)
        for watcher in (self._engine, self._monitor, self._store):
            simulator.add_testbench(watcher, background=True)
        simulator.run()
        assert self.stored == self.meaning.stored
        assert self.columns == self.meaning.columns
        assert not self.drained

    async def play(self, ctx, commands=(), items=()):
        """All of `items` concurrently with all of `commands`, until the last completion and
        chunk."""
        items = deque(items)
        for command in commands:
            await self._until(ctx, items, lambda: self.rng.random() < self.rates["command"])
            await self._until(ctx, items, lambda command=command: not self._depends(command))
            ctx.set(self.dut.commands.payload, command)
            ctx.set(self.dut.commands.valid, 1)
            await self._until(ctx, items, lambda: ctx.get(self.dut.commands.ready))
            self.issued.append(command)
            await self._step(ctx, items)
            ctx.set(self.dut.commands.valid, 0)
        chunks = len(self.meaning.stored) + sum(c["count"] for c in commands if c["store"])
        await self._until(
            ctx, items, lambda: not items and not self.outstanding and len(self.stored) == chunks
        )
        for command in commands:
            self.meaning.execute(command, self.drained.popleft)

    @property
    def outstanding(self):
        return self.issued[len(self.cycles["completed"]) :]

    def _depends(self, command):
        reads, _ = reads_and_writes(command)
        return any(reads & reads_and_writes(other)[1] for other in self.outstanding)

    async def _until(self, ctx, items, done):
        while not done():
            await self._step(ctx, items)

    async def _step(self, ctx, items):
        """One cycle, with an item when there is one and the dice say so."""
        if not self.loading and items and self.rng.random() < self.rates["item"]:
            memory, address, part, data = items[0]
            ctx.set(
                self.dut.items.payload,
                {
                    "memory": memory,
                    "address": address,
                    "part": part,
                    "array": 0,
                    "data": data,
                },
            )
            ctx.set(self.dut.items.valid, 1)
            self.loading = True
        taken = self.loading and ctx.get(self.dut.items.ready)
        await ctx.tick()
        if taken:
            self.meaning.item(*items.popleft())
            ctx.set(self.dut.items.valid, 0)
            self.loading = False

    async def _engine(self, ctx):
        """Answers a drain request after `latency` cycles, and says nonsense otherwise."""
        bits, lanes = drained_bits(self.config), self.config.vector_lanes
        answers = deque([None] * (self.latency - 1))
        promised = []
        while True:
            port = self.dut.drain
            request = (port.valid, port.chunk, port.follows, port.continues)
            _, _, valid, chunk, follows, continues = await ctx.tick().sample(*request)
            rows = [
                wrap(self.rng.getrandbits(bits) >> self.rng.randrange(bits), bits)
                for _ in range(lanes)
            ]
            if valid:
                # what was promised comes next, and nothing continues without a promise
                assert continues == bool(promised) and (not promised or chunk == promised[0])
                promised = list(range(chunk + 1, chunk + 1 + follows))
                self.drained.append((chunk, rows))
            answers.append(rows)
            ctx.set(self.dut.drain.sums, answers.popleft() or [0] * lanes)

    async def _monitor(self, ctx):
        dut, cycle = self.dut, 0
        while True:
            events = (dut.commands.valid & dut.commands.ready, dut.chunk_taken, dut.completed)
            writes = (dut.columns.valid, dut.columns.array, dut.columns.address, dut.columns.data)
            _, _, valid, array, address, data, *happened = await ctx.tick().sample(*writes, *events)
            if valid:
                self.columns.append((array, address, list(data)))
            for name, now in zip(self.cycles, happened, strict=True):
                if now:
                    self.cycles[name].append(cycle)
            cycle += 1

    async def _store(self, ctx):
        store = self.dut.store
        while True:
            ready = self.rng.random() < self.rates["store"]
            ctx.set(store.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(store.valid, store.payload)
            if valid and ready:
                self.stored.append((payload.kind, stored(self.config, payload.kind, payload.data)))


def stored(config, kind, data):
    """The elements of a chunk as it goes to DDR."""
    bits = {Store.VALUES: 16, Store.SUMS: 32, Store.COLUMNS: 8}[Store(kind)]
    lanes = range(config.vector_lanes)
    if kind != Store.COLUMNS:
        return [wrap(data >> bits * lane, bits) for lane in lanes]
    places = [64 * (lane // config.group) + 8 * (lane % config.group) for lane in lanes]
    return [wrap(data >> place, bits) for place in places]


def all_items(rng, config):
    """Items that fill every memory with random but legal contents."""
    wanted = []
    for memory in (Memory.VECTOR, Memory.SUMS, Memory.PARAMETERS, Memory.TABLES):
        for address in range(depth(config, memory)):
            for part in range(items_per_address(config, memory)):
                wanted.append((memory, address, part, random_item(rng, memory)))
    return wanted


def random_item(rng, memory):
    if memory is Memory.SUMS:
        low, high = (wrap(rng.getrandbits(27) >> rng.randrange(20), 27) for _ in range(2))
        return (low % (1 << 32)) | (high % (1 << 32)) << 32
    if memory is Memory.PARAMETERS:
        return rng.getrandbits(18 + 2 + 20)
    return rng.getrandbits(64 if memory is Memory.VECTOR else 32)


def random_command(rng, config, top):
    """A legal VECTOR on the addresses below `top` that does not read what it wrote for an earlier
    chunk."""
    n = rng.randrange(1, 7)
    f = quiet(
        config,
        count=n,
        drain=rng.randrange(16),
        plane_stride=rng.randrange(16, 60),
    )
    f["source"] = rng.choice(list(Source))
    for name in ("sum_address", "parameters", "operand0", "operand1", "operand2", "vector_address"):
        f[name] = rng.randrange(top - n)
    if rng.random() < 0.3:
        f["vector_address"] = f["operand0"]
    f["column_address"] = rng.randrange(config.column_depth - 8)
    choices = {"combine": Combine, "store": Store, "finish": Finish}
    for name, choice in choices.items():
        f[name] = rng.choice(list(choice))
    f["sums"] = rng.choice(list(Sums))
    f["scale"] = rng.choice(list(Scale))
    if f["scale"] == Scale.SCALAR:
        f["parameters"] = rng.randrange(SCALARS)
    if f["sums"] in REDUCTIONS:
        gain = rng.randint(0, MOST_GAIN[f["sums"]])
        f["sum_address"] = reduction_address(rng.randrange(SCALARS), gain)
    if rng.random() < 0.4:
        f["tail"], f["store"] = rng.randrange(config.vector_lanes), Store.NONE
    tables = [Function.TABLE0 + t for t in range(config.tables)]
    f["function"] = rng.choice([Function.NONE, Function.RELU, *tables, *tables])
    for name in ("write_vector", "write_columns"):
        f[name] = rng.randrange(2)
    clashes = any(f[f"operand{k}"] < f["vector_address"] < f[f"operand{k}"] + n for k in range(3))
    return random_command(rng, config, top) if clashes else f


def read_back(config):
    """Commands that send all of vector and sum memory to DDR, vector memory also through its row
    parameters, and zeros and sums through every scalar."""
    vector = quiet(config, source=Source.OPERAND, store=Store.VALUES)
    vector["count"] = config.vector_depth
    sums = quiet(config, count=config.sum_depth, sums=Sums.ADD, store=Store.SUMS)
    rows = dict(vector, scale=Scale.ROWS)
    scaled = [
        quiet(config, count=n, sums=kind, scale=Scale.SCALAR, parameters=i, store=Store.VALUES)
        for i in range(SCALARS)
        for n, kind in ((1, Sums.NONE), (6, Sums.ADD))
    ]
    return [vector, sums, rows, *scaled]


def first_scalars(config):
    """Commands that write every scalar."""
    return [
        quiet(config, source=Source.OPERAND, sums=Sums.MOMENTS, sum_address=i)
        for i in range(SCALARS)
    ]


@pytest.mark.parametrize(
    ("config", "latency", "rates"),
    [
        (SHALLOW, 3, {"store_rate": 0.9}),
        (SHALLOW, 12, {"store_rate": 0.15, "command_rate": 1.0}),
        (WIDE, 6, {"command_rate": 0.3}),
    ],
)
def test_random_commands(config, latency, rates):
    """Commands below chunk 36 and items above at the same time, then everything is read back."""
    bench = Bench(config, latency, seed=latency, **rates)
    rng = random.Random(100 + latency)
    top = 36
    upper = [
        item
        for item in all_items(rng, config)
        if item[0] is not Memory.TABLES and top <= item[1] < SHALLOW.first_scalar
    ]
    commands = [random_command(rng, config, top) for _ in range(80)]

    async def script(ctx):
        await bench.play(ctx, items=all_items(rng, config))
        await bench.play(ctx, read_back(config))  # whose scalars are rows that were loaded
        await bench.play(ctx, first_scalars(config))
        await bench.play(ctx, commands, upper)
        await bench.play(ctx, read_back(config))

    bench.run(script)
    assert len(bench.columns) > 80 and len(bench.stored) > 250


def test_cycles_are_exact():
    """Chunks of back-to-back commands follow each other without a gap; each completes a fixed time
    after its last chunk."""
    latency = 6
    bench = Bench(TINY, latency, seed=1, command_rate=1.0, store_rate=1.0)
    commands = [
        quiet(TINY, count=4, source=Source.DRAIN, write_columns=1),
        quiet(TINY, count=3, source=Source.DRAIN_PLANES, plane_stride=10, store=Store.SUMS),
        quiet(TINY, count=1, store=Store.VALUES),
        quiet(TINY, count=5, source=Source.OPERAND, operand0=9, write_vector=1, vector_address=20),
    ]

    async def script(ctx):
        await bench.play(ctx, commands)

    bench.run(script)
    assert COMPLETION_CYCLES == 25
    assert bench.cycles["command"] == [0, 1, 2, 6]
    assert bench.cycles["taken"] == [2, 3, 4, 5, 7, 9, 11, 12, 13, 14, 15, 16, 17]
    assert bench.cycles["completed"] == [last + latency + 25 for last in (5, 11, 12, 17)]
    assert command_cycles(4, 1, latency) == 36 == bench.cycles["completed"][0]


def test_who_reads_a_scalar_waits_for_reductions_and_nobody_else():
    """A chunk to be reduced every V/8 cycles, one more to the next command's; a maximum is in the
    scalar unit a fixed time after its last chunk, and whoever reads a scalar of its half is taken
    then."""
    latency = 6
    bench = Bench(WIDE, latency, seed=3, command_rate=1.0)
    maximum = {"source": Source.OPERAND, "sums": Sums.MAXIMUM}
    commands = [
        quiet(WIDE, count=3, **maximum),
        quiet(WIDE, count=2, **maximum, sum_address=reduction_address(1, 3)),
        quiet(WIDE, scale=Scale.SCALAR, parameters=SCALARS // 2, store=Store.VALUES),
        quiet(WIDE, count=2, source=Source.OPERAND, scale=Scale.SCALAR, store=Store.VALUES),
        quiet(WIDE),
    ]
    rows = [
        (
            Memory.PARAMETERS,
            WIDE.first_scalar + SCALARS // 2,
            lane,
            random_item(bench.rng, Memory.PARAMETERS),
        )
        for lane in range(WIDE.vector_lanes)
    ]

    async def script(ctx):
        await bench.play(ctx, items=rows)
        await bench.play(ctx, commands)

    bench.run(script)
    pace, begin = WIDE.vector_lanes // 8, bench.cycles["command"][0]
    bench.cycles = {name: [cycle - begin for cycle in bench.cycles[name]] for name in bench.cycles}
    second = 2 + 3 * pace + Reducer.GAP
    last = second + pace
    released = last + latency + RESULT_CYCLE + pace + 6 + 1
    assert bench.cycles["taken"] == [
        *(2, 2 + pace, 2 + 2 * pace),
        *(second, last, last + 1),
        *(released + 1, released + 2, released + 3),
    ]
    ends = [2 + 2 * pace, last, last + 1, released + 2, released + 3]
    assert bench.cycles["completed"] == [end + latency + COMPLETION_CYCLES for end in ends]


def test_items_after_bounded_commands_are_whole():
    """What a bounded command left in the queue blanks no loader item."""
    bench, rng = Bench(TINY, 6, seed=6, command_rate=1.0), random.Random(6)

    async def script(ctx):
        await bench.play(ctx, [quiet(TINY, tail=0, source=Source.DRAIN)] * 4)
        await bench.play(ctx, items=all_items(rng, TINY))
        await bench.play(ctx, [quiet(TINY, source=Source.OPERAND, store=Store.VALUES, count=128)])

    bench.run(script)
    assert len(bench.stored) == TINY.vector_depth


def test_many_short_reductions_wait_for_a_place():
    """One-chunk moments come faster than their scalars: at most three are under way."""
    bench = Bench(TINY, 6, seed=4, command_rate=1.0)
    commands = [
        quiet(TINY, source=Source.OPERAND, operand0=i, sums=Sums.MOMENTS, sum_address=i)
        for i in range(12)
    ]

    async def script(ctx):
        await bench.play(ctx, items=all_items(random.Random(4), TINY))
        await bench.play(ctx, commands)
        await bench.play(ctx, first_scalars(TINY)[12:])
        await bench.play(ctx, read_back(TINY))

    bench.run(script)
    taken = bench.cycles["taken"][:12]
    assert all(100 < b - a <= 116 for a, b in pairwise(taken[3:]))


def test_store_back_pressure_holds_chunks_back_and_nothing_else():
    """With DDR stuck, 33 chunks are taken and no more; commands behind wait; all comes out once DDR
    moves."""
    bench = Bench(TINY, 4, seed=5, command_rate=1.0, store_rate=0.0)
    commands = [quiet(TINY, count=40, store=Store.VALUES), quiet(TINY, count=2, store=Store.SUMS)]

    async def script(ctx):
        await bench.play(ctx, commands)

    async def release(ctx):
        await ctx.tick().repeat(200)
        assert len(bench.cycles["taken"]) == 33 and not bench.cycles["completed"]
        bench.rates["store"] = 1.0

    bench.run(script, release)
    assert len(bench.stored) == 42
