"""The scalar unit against `spec.numerics`, and the cycles it takes."""

import random

import pytest
from amaranth.sim import Simulator

from espalier.spec import numerics
from espalier.spec.isa import MOST_GAIN, Sums
from espalier.spec.numerics import MOST_ELEMENTS, SHIFTS, VALUE_MAX, VALUE_MIN, clip
from espalier_hw.vector_scalar import RELEASE_CYCLES, ScalarUnit

CYCLES = {Sums.MAXIMUM: (2, 1), Sums.MASS: (45, 1), Sums.MOMENTS: (111, 2)}
"""Cycles with a gain of 0, and for each 1 more."""


def elements(rng):
    """Results of a command: alike, spread, or at the ends."""
    count = rng.choice([1, MOST_ELEMENTS, rng.randint(1, MOST_ELEMENTS), 1 << rng.randrange(13)])
    if rng.random() < 0.2:
        return [rng.choice([VALUE_MIN, VALUE_MAX, 0, 1, -1])] * count
    spread, middle = 1 << rng.randrange(16), rng.randint(VALUE_MIN, VALUE_MAX)
    drawn = [middle // 2 + rng.randint(-spread, spread) for _ in range(min(count, 40))]
    return [clip(drawn[i % len(drawn)], VALUE_MIN, VALUE_MAX) for i in range(count)]


def expected(kind, x, gain):
    """(what the reducer sums, scalar)."""
    if kind == Sums.MAXIMUM:
        return max(x) << 12, numerics.maximum_scalar(max(x), gain)
    if kind == Sums.MASS:
        mass = sum(clip(numerics.column_input(v), -127, 127) for v in x)
        return mass << 8, numerics.mass_scalar(mass, gain)
    total = sum(x)
    return total, numerics.moments_scalar(total, sum(v * v for v in x), len(x), gain)


@pytest.mark.parametrize("kind", CYCLES)
def test_scalars(kind):
    rng, dut = random.Random(int(kind)), ScalarUnit()
    seen = set()

    async def bench(ctx):
        for x in [[VALUE_MIN] * MOST_ELEMENTS, *(elements(rng) for _ in range(150))]:
            gain, scalar = rng.randint(0, MOST_GAIN[kind]), rng.randrange(32)
            total, want = expected(kind, x, gain)
            squares = sum(v * v for v in x) + len(x)
            reduction = {"kind": kind, "scalar": scalar, "gain": gain, "most": len(x) - 1}
            reduction |= {"total": total, "squares": squares}
            ctx.set(dut.reductions.payload, reduction)
            ctx.set(dut.reductions.valid, 1)
            cycles, released = 0, []
            while not ctx.get(dut.written):
                gone = ctx.get(dut.reductions.ready)
                released += [cycles] * ctx.get(dut.released)
                await ctx.tick()
                cycles += 1
                if gone:
                    ctx.set(dut.reductions.valid, 0)
                    ctx.set(dut.reductions.payload, {"kind": 5, "gain": 9, "total": -7})
            base, more = CYCLES[kind]
            assert cycles == base + more * gain
            assert len(released) == 1 and cycles - released[0] <= RELEASE_CYCLES
            write = ctx.get(dut.write)
            scale = write.scale.multiplier, SHIFTS[write.scale.shift], write.scale.bias
            assert (write.scalar, scale) == (scalar, want)
            seen.add(write.scale.shift)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == ({0} if kind == Sums.MAXIMUM else {0, 1, 2, 3})
