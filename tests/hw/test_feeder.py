"""The feeder: exactly which words it issues with which input, and in how many cycles."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from espalier.spec.config import TINY
from espalier.spec.isa import Mode
from espalier.spec.memory import descriptor
from espalier_hw.cursor import product_layout
from espalier_hw.feeder import FIRST_WORD_LATENCY, Feeder

CONFIG = replace(
    TINY, name="FEEDER", arrays=1, lanes=8, vector_lanes=8, group=8, weight_depth=768
)
PRODUCT = {"mode": Mode.PLAIN, "threshold": 0, "activations": 0, "last": 0, "descriptors": 0}


def visits(columns, counts, base, send):
    """(address, x) of the words of one group; send(i, x) is what column i sends, 0 for nothing."""
    words = []
    for i, x in enumerate(columns):
        x = send(i, x)
        parts = [x] if abs(x) <= 127 else [127 if x > 0 else -127, x - (127 if x > 0 else -127)]
        for part in parts if x else []:
            words += [(base + word, part) for word in range(counts[i])]
        base += counts[i]
    return words


class Bench:
    """Runs `script(bench)` on a feeder; `words` has (cycle, address, x), `done` cycles."""

    def __init__(self, seed=0, hold=0.0):
        self.feeder, self.rng, self.hold = Feeder(CONFIG), random.Random(seed), hold
        self.cycle, self.words, self.done, self.held = 0, [], [], []
        self.events = {"visits": 0, "skipped": 0}

    def run(self, script):
        simulator = Simulator(self.feeder)
        simulator.add_clock(1e-6)

        async def bench(ctx):
            self.ctx = ctx
            await script(self)

        simulator.add_testbench(bench)
        simulator.run()
        return self

    async def tick(self):
        ctx, feeder = self.ctx, self.feeder
        hold = self.rng.random() < self.hold
        ctx.set(feeder.hold, hold)
        if hold:
            self.held.append(self.cycle)
        if ctx.get(feeder.word):
            self.words.append((self.cycle, ctx.get(feeder.address), ctx.get(feeder.x)))
        if ctx.get(feeder.done):
            self.done.append(self.cycle)
        for name in self.events:
            self.events[name] += ctx.get(getattr(feeder, name))
        self.cycle += 1
        assert self.cycle < 10_000
        await ctx.tick()

    async def load(self, group, columns, base, counts):
        fields = {"base": base, **{f"count{i}": count for i, count in enumerate(counts)}}
        data = sum((x & 255) << 8 * i for i, x in enumerate(columns))
        for kind, word in (("descriptors", descriptor(CONFIG).pack(fields)), ("activations", data)):
            idle = {"activations": 0, "descriptors": 0}
            self.ctx.set(self.feeder.write, {**idle, "address": group, "data": word, kind: 1})
            await self.tick()
        self.ctx.set(self.feeder.write, {**idle, "address": 0, "data": 0})

    async def products(self, *products):
        """Offers one product after the other, waits for the last; cycle of the first transfer."""
        ctx, command, first = self.ctx, self.feeder.command, None
        for product in products:
            ctx.set(command.payload, product_layout(CONFIG).const({**PRODUCT, **product}))
            ctx.set(command.valid, 1)
            while not ctx.get(command.ready):
                await self.tick()
            first = self.cycle if first is None else first
            await self.tick()
        ctx.set(command.valid, 0)
        while len(self.done) < len(products):
            await self.tick()
        return first


@pytest.mark.parametrize("hold", [0, 0.4])
@pytest.mark.parametrize("density", [1, 0.5, 0.1])
def test_words_and_inputs(density, hold):
    groups = 12

    async def script(bench):
        rng, expected, last = bench.rng, [], [[0] * 8 for _ in range(groups)]
        for step, threshold in enumerate((0, 0, 7)):
            for g in range(groups):
                counts = [rng.choice([0, 1, 1, 2, 32]) for _ in range(8)]
                base = rng.randint(0, 767 - sum(counts))
                x = [rng.choice([-127, 127, rng.randint(-127, 127)]) for _ in range(8)]
                x = [value if rng.random() < density else 0 for value in x]
                await bench.load(g, x, base, counts)

                def send(i, x, last=last[g], threshold=threshold):
                    delta = x - last[i]
                    if abs(delta) <= threshold:
                        return 0
                    last[i] = x
                    return delta

                expected += visits(x, counts, base, send)
            bench.done.clear()
            await bench.products({"mode": Mode.COMMIT, "groups": groups, "threshold": threshold})
            assert [word[1:] for word in bench.words] == expected, f"step {step}"
        assert bench.events["visits"] + bench.events["skipped"] >= 3 * 8 * groups

    Bench(seed=int(10 * density), hold=hold).run(script)


@pytest.mark.parametrize("counts", [[1] * 8, [0, 1, 0, 2] * 2, [1, 2] * 4, [3] * 8])
def test_a_dense_product_takes_its_words_and_the_latency(counts):
    async def script(bench):
        for g in range(16):
            await bench.load(g, [5] * 8, 0, counts)
        start = await bench.products({"groups": 16})
        words = 16 * sum(counts)
        first = start + FIRST_WORD_LATENCY
        assert [word[0] for word in bench.words] == list(range(first, first + words))
        assert bench.done == [first + words]

    Bench().run(script)


def test_waiting_products_follow_without_a_gap():
    async def script(bench):
        for g in range(8):
            await bench.load(g, [5] * 8, 0, [1, 2, 0, 1, 2, 1, 0, 2])
        lengths = [2, 1, 1, 3, 1]
        modes = [Mode.PLAIN, Mode.DELTA, Mode.DELTA, Mode.PLAIN, Mode.COMMIT]
        start = await bench.products(
            *({"groups": n, "mode": mode} for n, mode in zip(lengths, modes, strict=True))
        )
        first = start + FIRST_WORD_LATENCY
        ends = [9 * sum(lengths[: i + 1]) for i in range(len(lengths))]
        assert [word[0] for word in bench.words] == list(range(first, first + ends[-1]))
        assert bench.done == [first + end for end in ends]

    Bench().run(script)


def test_a_commit_is_seen_by_the_next_product_on_the_same_group():
    async def script(bench):
        await bench.load(0, [5] * 8, 0, [1] * 8)
        modes = [Mode.COMMIT] * 3 + [Mode.CLEAR, Mode.DELTA]
        await bench.products(*({"groups": 1, "mode": mode} for mode in modes))
        assert [word[1:] for word in bench.words] == 2 * [(i, 5) for i in range(8)]
        assert bench.events == {"visits": 16, "skipped": 16}

    Bench().run(script)


def test_empty_groups_take_a_cycle_each():
    async def script(bench):
        for g in range(32):
            await bench.load(g, [0] * 8 if g < 31 else [1] + [0] * 7, 0, [1] * 8)
        start = await bench.products({"groups": 32})
        assert bench.words == [(start + 31 + FIRST_WORD_LATENCY, 0, 1)]

    Bench().run(script)


def test_empty_groups_hide_behind_words():
    """One group in four has work, four words each: the lanes never wait for the others."""
    async def script(bench):
        for g in range(32):
            await bench.load(g, [0] * 3 + [int(g % 4 == 0)] + [0] * 4, 0, [4] * 8)
        start = await bench.products({"groups": 32})
        first = start + FIRST_WORD_LATENCY
        assert [word[0] for word in bench.words] == list(range(first, first + 32))

    Bench().run(script)


def test_a_hold_takes_exactly_one_cycle():
    async def script(bench):
        for g in range(4):
            await bench.load(g, [5] * 8, 0, [2] * 8)
        await bench.products({"groups": 4})
        assert len(bench.words) == 64
        first, last = bench.words[0][0], bench.words[-1][0]
        held = sum(first < cycle < last for cycle in bench.held)
        assert held > 5 and last - first + 1 == 64 + held

    Bench(seed=1, hold=0.3).run(script)
