"""One lane against slot[s] += digit·x, with a slot memory that punishes early reads."""

import random

import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from espalier.spec.config import ACCUMULATOR_BITS, SLOTS
from espalier_hw.chip import ECP5
from espalier_hw.lane import CLEAR_DELAY, LANE_LATENCY, Lane

MODULUS = 1 << ACCUMULATOR_BITS
RUBBISH = 0x5A5A5
IDLE = (0, 0, 0, 0)
WRITE_DELAY = CLEAR_DELAY + 1
"""Cycles from an entry to its sum at the write port."""


def wrap(value: int) -> int:
    return (value + MODULUS // 2) % MODULUS - MODULUS // 2


def meaning(entries: list[tuple[int, int, int, int]]) -> list[int]:
    slots, drained = [0] * SLOTS, []
    for digit, slot, x, clear in entries:
        drained.append(slots[slot] if clear else drained[-1] if drained else 0)
        slots[slot] = 0 if clear else wrap(slots[slot] + digit * x)
    return drained


def run(
    entries: list[tuple[int, int, int, int]],
    platform: object = None,
    *,
    multiplier: bool = False,
) -> list[int]:
    """What the lane drains when it is fed (digit, slot, x, clear) a cycle.

    But on an ECP5 a word reads as rubbish in the cycle after it was written, when an MLAB promises
    nothing.
    """
    lane, drained = Lane(multiplier=multiplier), []
    simulator = Simulator(Fragment.get(lane, platform))
    simulator.add_clock(1e-6)
    words = lane.accumulators.data

    def entry(cycle: int) -> tuple[int, int, int, int]:
        return entries[cycle] if 0 <= cycle < len(entries) else IDLE

    async def bench(ctx):
        fresh = None
        for cycle in range(len(entries) + LANE_LATENCY):
            for port, value in zip((lane.digit, lane.slot, lane.x), entry(cycle), strict=False):
                ctx.set(port, value)
            ctx.set(lane.clear, entry(cycle - CLEAR_DELAY)[3])
            drained.append(ctx.get(lane.drained))
            await ctx.tick()
            if platform is ECP5:
                continue
            address = entry(cycle - WRITE_DELAY)[1]
            if fresh is not None and fresh[0] != address:
                ctx.set(words[fresh[0]], fresh[1])
            fresh = (address, ctx.get(words[address]))
            ctx.set(words[address], RUBBISH)
        drained.append(ctx.get(lane.drained))

    simulator.add_testbench(bench)
    simulator.run()
    return drained[LANE_LATENCY:-1]


def drain_all() -> list[tuple[int, int, int, int]]:
    return [(0, slot, 0, 1) for slot in range(SLOTS)]


@pytest.mark.parametrize("multiplier", [False, True])
def test_every_digit_times_every_input(multiplier):
    pairs = [(digit, x) for digit in range(-8, 8) for x in range(-127, 128)]
    entries = []
    for digit, x in pairs:
        entries += [(digit, 5, x, 0), (0, 5, 0, 1)]
    assert run(entries, multiplier=multiplier)[1::2] == [digit * x for digit, x in pairs]


@pytest.mark.parametrize("multiplier", [False, True])
@pytest.mark.parametrize("platform", [None, ECP5])
@pytest.mark.parametrize("slots", [1, 2, 3, 32])
def test_random_entries_on_few_slots(slots, platform, multiplier):
    rng = random.Random(slots)
    entries = [
        (0, rng.randrange(slots), 0, 1) if rng.random() < 0.2
        else (rng.randint(-8, 7), rng.randrange(slots), rng.choice([0, rng.randint(-127, 127)]), 0)
        for _ in range(600)
    ]
    entries = drain_all() + entries + drain_all()
    assert run(entries, platform, multiplier=multiplier) == meaning(entries)


def test_accumulators_wrap_at_20_bits():
    entries = [(-8, 3, 127, 0)] * 700 + [(0, 3, 0, 1)]
    assert run(entries)[-1] == wrap(-8 * 127 * 700)


def test_back_to_back_drains_of_one_slot():
    entries = [(7, 9, 100, 0), (0, 9, 0, 1), (0, 9, 0, 1), (1, 9, 1, 0), (0, 9, 0, 1)]
    assert run(entries) == [0, 700, 0, 0, 1]
