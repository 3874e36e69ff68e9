"""The column engine against its plain-Python meaning: random products, drains, columns and gaps."""

from dataclasses import replace

import pytest
from engine_bench import Bench

from espalier.spec.config import SLOTS, TINY
from espalier.spec.isa import Mode
from espalier_hw.engine import COMPLETION_LATENCY, FIRST_WORD_LATENCY

TWO_CHUNKS = replace(TINY, name="TWO_CHUNKS", arrays=4, lanes=16, vector_lanes=8)
"""Two groups a column write, two chunks a slot."""
THREE_CHUNKS = replace(
    TINY, name="THREE_CHUNKS", arrays=3, lanes=24, vector_lanes=8, weight_depth=768
)
"""Arrays that are no multiple of the written groups, three chunks a slot, weights in two parts."""
EIGHTS = replace(TINY, name="EIGHTS", arrays=1, lanes=8, vector_lanes=8, group=8)
EIGHT_ARRAYS = replace(TINY, name="EIGHT_ARRAYS", arrays=8, weight_depth=512)
"""As many arrays as DE1_SOC has, with few lanes: cycles do not depend on the lanes."""
GROUPS = 5
WORDS = 48
NOISE_SLOT = SLOTS - 1
"""Not used by weights: drained while products run."""


def random_columns(rng, count):
    kind = rng.random()
    if kind < 0.2:
        return [0] * count
    return [
        rng.choice([0, 127, -127, rng.randint(-127, 127), rng.randint(-3, 3)])
        for _ in range(count)
    ]


async def load(bench):
    """Random weights, descriptors that use all of them, and columns."""
    c, rng = bench.config, bench.rng
    address = c.weight_depth - WORDS
    for a in range(c.arrays):
        for start in range(0, WORDS, 8):
            entries = [(rng.randint(-8, 7), rng.randrange(NOISE_SLOT)) for _ in range(8 * c.lanes)]
            words = [entries[i::8] for i in range(8)]
            await bench.load_weights(a, address + start, words)
        for g in range(2 * GROUPS):
            counts = [rng.choice([0, 0, 1, 1, 2, 3]) for _ in range(c.group)]
            await bench.load_descriptor(a, g, address + rng.randint(0, WORDS - sum(counts)), counts)
            await bench.load_group(a, g, random_columns(rng, c.group))


def random_product(rng):
    groups = rng.randint(1, GROUPS)
    return {
        "mode": rng.choice([Mode.PLAIN, Mode.DELTA, Mode.COMMIT, Mode.COMMIT, Mode.CLEAR]),
        "threshold": rng.choice([0, 0, 5, 126, 127, 128, 254, 255]),
        "groups": groups,
        **{name: rng.randint(0, GROUPS) for name in ("activations", "last", "descriptors")},
    }


async def noise(bench):
    """Takes cycles away from the products by draining the slot that they do not use."""
    for _ in range(bench.rng.randrange(4)):
        await bench.drain([NOISE_SLOT * bench.config.slot_chunks] * bench.rng.randint(1, 5), 0.5)


def all_chunks(config):
    return list(range(NOISE_SLOT * config.slot_chunks))


async def check_drains(bench, chunks, pause=0):
    assert await bench.drain(chunks, pause) == [bench.meaning.drain(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    "config, seed",
    [(TINY, 0), (TINY, 1), (TINY, 2), (TWO_CHUNKS, 3), (THREE_CHUNKS, 4), (EIGHTS, 5), (EIGHTS, 6)],
    ids=lambda value: getattr(value, "name", value),
)
def test_random_products(config, seed):
    async def script(bench):
        await bench.clear()
        await load(bench)
        for _ in range(4):
            for _ in range(bench.rng.randint(1, 6)):
                await bench.product(random_product(bench.rng))
                await bench.pause(bench.rng.choice([0, 0.9]))
                await noise(bench)
            await bench.finish()
            assert {n: bench.counted[n] for n in bench.meaning.events} == bench.meaning.events
            await check_drains(bench, bench.rng.sample(all_chunks(config), 5), 0.3)
            for i in range(8):
                x = random_columns(bench.rng, config.vector_lanes)
                start = i * config.chunk_groups % config.arrays
                await bench.write_columns(start, bench.rng.randint(0, 2 * GROUPS), x)
        await check_drains(bench, all_chunks(config))

    Bench(config, seed).run(script)


def test_consecutive_products_see_each_others_commits():
    """Products of one or two groups follow each other closely on the same last-sent values."""
    async def script(bench):
        await load(bench)
        for n in range(60):
            mode = bench.rng.choice([Mode.COMMIT, Mode.DELTA, Mode.CLEAR])
            groups = bench.rng.randint(1, 2)
            await bench.product({
                "mode": mode,
                "groups": groups,
                "activations": bench.rng.randint(0, 2 * GROUPS - 2),
                "last": bench.rng.randint(0, 1),
                "descriptors": n % GROUPS,
            })
        await bench.finish()
        assert {n: bench.counted[n] for n in bench.meaning.events} == bench.meaning.events
        await check_drains(bench, all_chunks(TINY))

    Bench(TINY, 7).run(script)


def test_items_wait_while_columns_are_written():
    async def script(bench):
        ctx, engine = bench.ctx, bench.engine
        ctx.set(engine.columns.valid, 1)
        assert not ctx.get(engine.items.ready)
        ctx.set(engine.columns.valid, 0)
        assert ctx.get(engine.items.ready)

    Bench(TINY, 0).run(script)


def test_clear_takes_one_cycle_a_slot_and_clears_all():
    async def script(bench):
        await load(bench)
        for g in range(GROUPS):
            await bench.product({"groups": 1, "activations": g, "descriptors": g})
        await bench.finish()
        start = bench.cycle
        await bench.clear()
        assert bench.cycle - start == SLOTS + 1
        chunks = list(range(bench.config.tile_chunks))
        assert await bench.drain(chunks) == [[0] * bench.config.vector_lanes] * len(chunks)

    Bench(THREE_CHUNKS, 3).run(script)


async def load_balanced(bench, groups, mean):
    """Columns of 1, with the same counts in every array's own order; words of one array."""
    rng, c = bench.rng, bench.config
    spread = [rng.uniform(-mean, mean) + rng.random() for _ in range(groups * c.group)]
    counts = [max(0, int(mean + offset)) for offset in spread]
    for a in range(c.arrays):
        rng.shuffle(counts)
        base = 0
        for g in range(groups):
            part = counts[g * c.group : (g + 1) * c.group]
            await bench.load_descriptor(a, g, base, part)
            await bench.load_group(a, g, [1] * c.group)
            base += sum(part)
    return sum(counts)


@pytest.mark.parametrize("mean", [1.3, 2.7])
def test_lanes_are_busy_nine_cycles_in_ten(mean):
    """1,024 columns, all nonzero, in 8 balanced arrays: a product takes its words and latencies."""
    async def script(bench):
        words = await load_balanced(bench, 32, mean)
        start = await bench.product({"groups": 32})
        await bench.finish()
        assert bench.word_cycles == [(start + FIRST_WORD_LATENCY + i, 8) for i in range(words)]
        last = start + FIRST_WORD_LATENCY + words - 1
        assert bench.completion_cycles == [last + COMPLETION_LATENCY]
        assert bench.counted["running"] == bench.completion_cycles[0] - start
        assert bench.counted["words"] >= 0.9 * 8 * bench.counted["running"]

    Bench(EIGHT_ARRAYS, int(10 * mean)).run(script)


def test_consecutive_products_issue_without_a_gap():
    async def script(bench):
        words = await load_balanced(bench, 4, 2)
        start, *_ = [await bench.product({"groups": 4}) for _ in range(5)]
        await bench.finish()
        assert bench.word_cycles == [(start + FIRST_WORD_LATENCY + i, 8) for i in range(5 * words)]

    Bench(EIGHT_ARRAYS, 1).run(script)


def test_an_early_array_goes_on_with_the_next_products():
    """Array 0 has 96 words in the first and third product, array 1 has 192 in the second."""
    async def script(bench):
        for a in range(2):
            for g in range(24):
                await bench.load_descriptor(a, g, 0, [3] * 4)
                await bench.load_group(a, g, [int((g < 8) == (a == 0))] * 4)
        start = await bench.product({"groups": 8})
        await bench.product({"groups": 16, "activations": 8})
        await bench.product({"groups": 8})
        await bench.finish()
        assert bench.counted["words"] == 96 + 192 + 96
        # array 0: its words and the 16 groups without work
        assert bench.word_cycles[-1][0] - (start + FIRST_WORD_LATENCY) < 96 + 16 + 96

    Bench(TINY, 0).run(script)


def test_a_drain_takes_one_cycle_from_every_array():
    async def script(bench):
        words = await load_balanced(bench, 8, 2)
        await bench.product({"groups": 8})
        await bench.drain([NOISE_SLOT] * 20, 0.5)
        await bench.finish()
        first, last = bench.word_cycles[0][0], bench.word_cycles[-1][0]
        stolen = sum(first < cycle < last for cycle in bench.stolen_cycles)
        assert stolen > 5 and last - first + 1 == words + stolen
        assert all(words == 8 for _, words in bench.word_cycles)

    Bench(EIGHT_ARRAYS, 2).run(script)


def test_reset_ends_a_product_and_clear_makes_ready_again():
    async def script(bench):
        await load(bench)
        product = {"groups": GROUPS}
        for _ in range(3):
            await bench.product(product)
        await bench.pause(0.9)
        await bench.abort()
        await bench.clear()
        await bench.product(product)
        await bench.finish()
        await check_drains(bench, all_chunks(TINY))

    Bench(TINY, 4).run(script)
