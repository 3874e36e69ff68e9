"""The column engine's plain-Python meaning, and a bench that drives it in Amaranth's simulator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from espalier.spec.config import ACCUMULATOR_BITS, SLOTS, Config
from espalier.spec.isa import Mode
from espalier.spec.memory import ENTRY, Memory, descriptor
from espalier_hw.engine import DRAIN_LATENCY, EVENT_LATENCY, Engine
from espalier_hw.interfaces import PRODUCT_COMMAND

LIMIT_CYCLES = 60_000


def wrap(value: int) -> int:
    half = 1 << (ACCUMULATOR_BITS - 1)
    return (value + half) % (2 * half) - half


def quad_word(entries: list[tuple[int, int]]) -> int:
    """Four (digit, slot) as they lie in the weight memory."""
    packed = [ENTRY.pack({"digit": digit, "slot": slot}) for digit, slot in entries]
    return sum(entry << ENTRY.width * i for i, entry in enumerate(packed))


class Meaning:
    """What PRODUCTs, drains and writes do, one after the other, in Python integers."""

    def __init__(self, config: Config):
        c = self.config = config

        def in_arrays(depth: int, word: list) -> list[list[list]]:
            return [[list(word) for _ in range(depth)] for _ in range(c.arrays)]

        self.weights = in_arrays(c.weight_depth, [(0, 0)] * c.lanes)
        self.descriptors = [[(0, [0] * c.group)] * c.descriptor_depth for _ in range(c.arrays)]
        self.x = in_arrays(c.column_depth, [0] * c.group)
        self.last = in_arrays(c.column_depth, [0] * c.group)
        self.slots = in_arrays(SLOTS, [0] * c.lanes)
        self.events = {"words": 0, "visits": 0, "skipped": 0}

    def product(self, f: dict[str, int]) -> None:
        """Adds the product to the slots. Missing fields are 0."""
        f = {"mode": 0, "threshold": 0, "activations": 0, "last": 0, "descriptors": 0, **f}
        for a in range(self.config.arrays):
            for g in range(f["groups"]):
                self._group(a, f, g)

    def _group(self, a: int, f: dict[str, int], g: int) -> None:
        x, last = self.x[a][f["activations"] + g], self.last[a][f["last"] + g]
        word, counts = self.descriptors[a][f["descriptors"] + g]
        if f["mode"] == Mode.CLEAR:
            last[:] = [0] * len(last)
            return
        for i, count in enumerate(counts):
            plain = f["mode"] == Mode.PLAIN
            delta = x[i] - (0 if plain else last[i])
            if abs(delta) > (0 if plain else f["threshold"]):
                times = 1 + (abs(delta) > 127)
                self.events["visits"] += times
                self.events["words"] += times * count
                self._column(a, word, count, delta)
                if f["mode"] == Mode.COMMIT:
                    last[i] = x[i]
            else:
                self.events["skipped"] += 1
            word += count

    def _column(self, a: int, word: int, count: int, x: int) -> None:
        for entries in self.weights[a][word : word + count]:
            for lane, (digit, slot) in enumerate(entries):
                self.slots[a][slot][lane] = wrap(self.slots[a][slot][lane] + digit * x)

    def drain(self, chunk: int) -> list[int]:
        slot, part = divmod(chunk, self.config.slot_chunks)
        lanes = range(part * self.config.vector_lanes, (part + 1) * self.config.vector_lanes)
        sums = [sum(array[slot][lane] for array in self.slots) for lane in lanes]
        for array in self.slots:
            for lane in lanes:
                array[slot][lane] = 0
        return sums


class Bench:
    """Drives the engine and its meaning with the same operations.

    `run` takes a script: an async function of the bench. Everything reported is counted.
    """

    def __init__(self, config: Config, seed: int):
        self.config, self.rng = config, random.Random(seed)
        self.engine, self.meaning, self.reset = Engine(config), Meaning(config), Signal()
        self.counted = {"words": 0, "visits": 0, "skipped": 0, "running": 0}
        self.issued = self.completed = self.cycle = 0
        self.word_cycles: list[tuple[int, int]] = []
        self.completion_cycles: list[int] = []
        self.stolen_cycles: list[int] = []

    def run(self, script: Callable) -> None:
        simulator = Simulator(ResetInserter(self.reset)(self.engine))
        simulator.add_clock(1e-6)

        async def bench(ctx):
            self.ctx = ctx
            await script(self)

        simulator.add_testbench(bench)
        simulator.run()

    async def tick(self) -> None:
        """One clock cycle; counts what the engine reports in it."""
        get, events = self.ctx.get, self.engine.events
        for name in self.counted:
            self.counted[name] += get(getattr(events, name))
        if words := get(events.words):
            self.word_cycles.append((self.cycle - EVENT_LATENCY, words))
        if get(self.engine.completed):
            self.completed += 1
            self.completion_cycles.append(self.cycle)
        assert get(events.running) == (self.issued > self.completed - get(self.engine.completed))
        self.cycle += 1
        assert self.cycle < LIMIT_CYCLES
        await self.ctx.tick()

    async def product(self, f: dict[str, int]) -> int:
        """Issues a product, waiting only for the stream; the cycle in which it was taken."""
        ctx, commands = self.ctx, self.engine.commands
        ctx.set(commands.payload, PRODUCT_COMMAND.const(f))
        ctx.set(commands.valid, 1)
        while not ctx.get(commands.ready):
            await self.tick()
        taken = self.cycle
        await self.tick()
        self.issued += 1
        ctx.set(commands.valid, 0)
        self.meaning.product(f)
        return taken

    async def finish(self, outstanding: int = 0) -> None:
        while self.issued - self.completed > outstanding:
            await self.tick()

    async def clear(self) -> None:
        self.ctx.set(self.engine.clear, 1)
        await self.tick()
        self.ctx.set(self.engine.clear, 0)
        while self.ctx.get(self.engine.clearing):
            await self.tick()

    async def abort(self) -> None:
        """Reset for a cycle: the engine forgets its products; the slots hold anything."""
        self.ctx.set(self.reset, 1)
        await self.ctx.tick()
        self.ctx.set(self.reset, 0)
        self.completed = self.issued
        self.meaning.slots = [[[0] * len(lanes) for lanes in array] for array in self.meaning.slots]

    def _announced(self, chunks: list[int]) -> Iterator[tuple[int, int, int]]:
        """(chunk, follows, continues) of every request: consecutive chunks, cut at random."""
        left = continues = 0
        for i, chunk in enumerate(chunks):
            if not left and not continues:
                run = 0
                while i + run + 1 < len(chunks) and chunks[i + run + 1] == chunk + run + 1:
                    run += 1
                left = self.rng.choice([0, run, run])
            yield chunk, min(left, 3), continues
            continues = int(left > 0)
            left = max(left - 1, 0)

    async def drain(self, chunks: list[int], pause: float = 0) -> list[list[int]]:
        """Sums of chunks requested one a cycle, with random pauses."""
        ctx, port, due, sums = self.ctx, self.engine.drain, [], []
        waiting = list(self._announced(chunks))
        while waiting or due:
            ask = bool(waiting) and self.rng.random() >= pause
            ctx.set(port.valid, ask)
            if ask:
                chunk, follows, continues = waiting.pop(0)
                if not (continues and chunk % self.config.slot_chunks):
                    self.stolen_cycles.append(self.cycle)
                ctx.set(port.chunk, chunk)
                ctx.set(port.follows, follows)
                ctx.set(port.continues, continues)
                due.append(self.cycle + DRAIN_LATENCY)
            if due and due[0] == self.cycle:
                due.pop(0)
                sums.append([ctx.get(port.sums[v]) for v in range(self.config.vector_lanes)])
            await self.tick()
            ctx.set(port.valid, 0)
        return sums

    async def write_columns(self, array: int, address: int, x: list[int]) -> None:
        """A chunk from the vector unit, always taken."""
        port, c = self.engine.columns, self.config
        self.ctx.set(port.valid, 1)
        self.ctx.set(port.array, array)
        self.ctx.set(port.address, address)
        for i, value in enumerate(x):
            self.ctx.set(port.data[i], value)
        await self.tick()
        self.ctx.set(port.valid, 0)
        for i in range(c.chunk_groups):
            wrapped, a = divmod(array + i, c.arrays)
            self.meaning.x[a][address + wrapped] = list(x[i * c.group : (i + 1) * c.group])

    async def _item(self, memory: Memory, array: int, address: int, data: int) -> None:
        ctx, port = self.ctx, self.engine.items
        item = {"memory": memory, "array": array, "address": address, "part": 0, "data": data}
        ctx.set(port.payload, item)
        ctx.set(port.valid, 1)
        while not ctx.get(port.ready):
            await self.tick()
        await self.tick()
        ctx.set(port.valid, 0)

    async def load_group(self, array: int, address: int, x: list[int]) -> None:
        word = sum((v & 255) << 8 * i for i, v in enumerate(x))
        await self._item(Memory.ACTIVATIONS, array, address, word)
        self.meaning.x[array][address] = list(x)

    async def load_descriptor(self, array: int, address: int, base: int, counts: list[int]) -> None:
        fields = {"base": base, **{f"count{i}": count for i, count in enumerate(counts)}}
        await self._item(Memory.DESCRIPTORS, array, address, descriptor(self.config).pack(fields))
        self.meaning.descriptors[array][address] = (base, list(counts))

    async def load_weights(self, array: int, address: int, words: list[list]) -> None:
        """Words of (digit, slot) a lane, in the loader's beats."""
        ctx, port, c = self.ctx, self.engine.weights, self.config
        quads = [quad_word(word[q : q + 4]) for word in words for q in range(0, c.lanes, 4)]
        self.meaning.weights[array][address : address + len(words)] = words
        ctx.set(port.array, array)
        for start in range(0, len(quads), c.quads_per_beat):
            beat = quads[start : start + c.quads_per_beat]
            word, first = divmod(start, c.lanes // 4)
            ctx.set(port.address, address + word)
            ctx.set(port.first, first)
            ctx.set(port.count, len(beat))
            ctx.set(port.valid, 1)
            for i, quad in enumerate(beat):
                ctx.set(port.quads[i], quad)
            await self.tick()
            ctx.set(port.valid, 0)
            await self.pause(0.1)

    async def pause(self, probability: float) -> None:
        while self.rng.random() < probability:
            await self.tick()
