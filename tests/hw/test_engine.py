"""The column engine against its plain-Python meaning: random products, drains, columns and gaps."""

from dataclasses import replace

import pytest
from engine_bench import Bench

from espalier.spec.config import SLOTS, TINY
from espalier.spec.isa import Mode

TWO_CHUNKS = replace(TINY, name="TWO_CHUNKS", arrays=4, lanes=16, vector_lanes=8)
"""Two groups a column write, two chunks a slot."""
THREE_CHUNKS = replace(TINY, name="THREE_CHUNKS", arrays=3, lanes=24, vector_lanes=8, weight_depth=768)
"""Arrays that are no multiple of the written groups, three chunks a slot, weights in two parts."""
EIGHTS = replace(TINY, name="EIGHTS", arrays=1, lanes=8, vector_lanes=8, group=8)
CONFIGS = (TINY, TWO_CHUNKS, THREE_CHUNKS, EIGHTS)
GROUPS = 6
NOISE_SLOT = SLOTS - 1
"""Not used by weights: drained while products run."""


def random_columns(rng, count):
    kind = rng.random()
    if kind < 0.2:
        return [0] * count
    return [rng.choice([0, 127, -127, rng.randint(-127, 127), rng.randint(-3, 3)]) for _ in range(count)]


async def load(bench, words):
    """Random weights, descriptors that use all of them, and columns."""
    c, rng = bench.config, bench.rng
    for a in range(c.arrays):
        address = c.weight_depth - words
        for start in range(0, words, 8):
            entries = [[(rng.randint(-8, 7), rng.randrange(NOISE_SLOT)) for _ in range(c.lanes)] for _ in range(8)]
            await bench.load_weights(a, address + start, entries)
        for g in range(2 * GROUPS):
            counts = [rng.choice([0, 0, 1, 1, 2, 3]) for _ in range(c.group)]
            await bench.load_descriptor(a, g, address + rng.randint(0, words - sum(counts)), counts)
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


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(2))
def test_random_products(config, seed):
    async def script(bench):
        await bench.clear()
        await load(bench, 64)
        for _ in range(6):
            for _ in range(bench.rng.randint(1, 8)):
                await bench.product(random_product(bench.rng))
                await bench.pause(bench.rng.choice([0, 0.9]))
                await noise(bench)
            await bench.finish()
            assert {n: bench.counted[n] for n in bench.meaning.events} == bench.meaning.events
            chunks = bench.rng.sample(all_chunks(config), 5)
            assert await bench.drain(chunks, 0.3) == [bench.meaning.drain(chunk) for chunk in chunks]
            starts = range(0, config.arrays, 1 if config.arrays % config.chunk_groups else config.chunk_groups)
            for _ in range(8):
                x = random_columns(bench.rng, config.vector_lanes)
                await bench.write_columns(bench.rng.choice(starts), bench.rng.randint(0, 2 * GROUPS), x)
        chunks = all_chunks(config)
        assert await bench.drain(chunks) == [bench.meaning.drain(chunk) for chunk in chunks]

    Bench(config, seed).run(script)


def test_consecutive_products_see_each_others_commits():
    """Products of one or two groups follow each other closely on the same last-sent values."""
    async def script(bench):
        await load(bench, 64)
        for n in range(60):
            mode = bench.rng.choice([Mode.COMMIT, Mode.DELTA, Mode.CLEAR])
            groups = bench.rng.randint(1, 2)
            await bench.product({
                "mode": mode, "threshold": 0, "groups": groups, "activations": bench.rng.randint(0, 2 * GROUPS - 2),
                "last": bench.rng.randint(0, 1), "descriptors": n % GROUPS,
            })
        await bench.finish()
        assert {n: bench.counted[n] for n in bench.meaning.events} == bench.meaning.events
        chunks = all_chunks(TINY)
        assert await bench.drain(chunks) == [bench.meaning.drain(chunk) for chunk in chunks]

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
        await load(bench, 64)
        for g in range(GROUPS):
            await bench.product({"mode": Mode.PLAIN, "groups": 1, "activations": g, "descriptors": g})
        await bench.finish()
        start = bench.cycle
        await bench.clear()
        assert bench.cycle - start == SLOTS + 1
        chunks = list(range(bench.config.tile_chunks))
        assert await bench.drain(chunks) == [[0] * bench.config.vector_lanes] * len(chunks)

    Bench(THREE_CHUNKS, 3).run(script)
