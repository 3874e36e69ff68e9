"""The sequencer with units that answer after random delays: order, waits, operands, loops,
faults, timing.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from axi_model import simulate
from sequencer_bench import HALT, RandomProgram, i, meaning, run

from espalier.spec.config import TINY
from espalier.spec.isa import NO_WAIT, UNITS, Opcode, Store
from espalier.spec.memory import Memory
from espalier_hw.issue import Issue
from espalier_hw.sequencer import Sequencer


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_in_order_and_with_waits(seed):
    rng = random.Random(seed)
    program = RandomProgram(rng).code
    registers = [rng.getrandbits(32) for _ in range(14)] + [rng.randint(0, 99), rng.randint(0, 2)]
    expected, after, executed = meaning(program, registers)
    units, result = run(program, registers, seed)
    taken = in_order(units.taken, expected)
    assert [(unit, payload) for unit, payload, _ in taken] == [
        # what only an EXPAND has may be anything in a LOAD
        (unit, {name: fields.get(name, value) for name, value in payload.items()})
        for (unit, fields, _), (_, payload, _) in zip(expected, taken, strict=True)
    ]
    for (unit, _, outstanding), (_, _, pc) in zip(taken, expected, strict=True):
        partner = {"store": "vector", "vector": "store"}.get(unit)
        for other in set(UNITS) - {partner}:
            limit = program[pc].fields.get(f"wait_{other}", NO_WAIT)
            assert limit == NO_WAIT or outstanding.get(other, 0) <= limit, (unit, pc, other)
    assert result["registers"] == after
    assert units.executed == executed and units.halts == 1


def in_order(taken, expected):
    """A VECTOR may reach the store unit first: put such pairs into the order of `expected`."""
    result = list(taken)
    for n in range(len(result) - 1):
        if result[n][0] == "store" and expected[n][0] == "vector":
            result[n], result[n + 1] = result[n + 1], result[n]
    return result


def instant(program, **settings):
    return run(program, delay=1, stall=0.0, **settings)


def test_an_instruction_takes_two_cycles_a_loop_and_a_jump_one_more():
    first = 4
    """START, fetch, take and decode before the first instruction is executed."""
    passes, sets = 5, 3
    program = [
        i(Opcode.LOOP, count=passes, end=sets + 1),
        *[i(Opcode.SET, target=1)] * sets,
        i(Opcode.END),
        HALT,
    ]
    _, result = instant(program)
    assert result["cycles"] == first + 3 + 2 * passes * (sets + 1) + passes - 1
    _, result = instant([i(Opcode.LOOP, count=0, end=1), i(Opcode.END), HALT])
    assert result["cycles"] == first + 3 + 1


def test_products_follow_each_other_every_two_cycles():
    product = i(Opcode.PRODUCT, groups=1)
    _, one = instant([product, HALT])
    _, many = instant([product] * 9 + [HALT])
    assert many["cycles"] - one["cycles"] == 2 * 8


def test_a_vector_with_a_store_waits_for_both_queues():
    vector = i(Opcode.VECTOR, count=1, store=Store.VALUES)
    units, _ = run([vector] * 20 + [HALT], seed=3, delay=30, stall=0.8)
    assert Counter(unit for unit, *_ in units.taken) == {"vector": 20, "store": 20}
    assert units.most["vector"] == units.most["store"] == 4


LOOP = i(Opcode.LOOP, count=1, end=20)
EXPAND_SIZES = ("most", "heads", "groups", "slots")


def expand(**fields):
    return i(Opcode.EXPAND, **{**dict.fromkeys(EXPAND_SIZES, 1), **fields})


ILLEGAL = {
    "opcode 0": ([i(Opcode.SET), 0], 1),
    "opcode 15": ([15], 0),
    "END without LOOP": ([i(Opcode.END), HALT], 0),
    "END after the last pass": (
        [i(Opcode.LOOP, count=1, end=1), i(Opcode.END), i(Opcode.END), HALT],
        2,
    ),
    "five loops": ([*[LOOP] * 5, HALT], 4),
    "beyond the program": ([i(Opcode.SET), i(Opcode.SET)], 2),
    "LOOP to beyond": ([i(Opcode.LOOP, count=0, end=100), HALT], 101),
    "LOAD of nothing": ([i(Opcode.LOAD, memory=4), HALT], 0),
    "PRODUCT of nothing": ([i(Opcode.PRODUCT), HALT], 0),
    "VECTOR of nothing": ([i(Opcode.VECTOR), HALT], 0),
    **{f"EXPAND of no {name}": ([expand(**{name: 0}), HALT], 0) for name in EXPAND_SIZES},
}


@pytest.mark.parametrize("value", [0, 1, 3, 4, 5, 8, 11, 12, 13, 511, 1 << 31, (1 << 32) - 1])
def test_a_bounded_vector_takes_the_chunks_of_its_elements(value):
    """elements = clamp(R, 1, count·V) with count 3 and V 4; a cycle more than without a bound."""
    vector = {"count": 3, "register": 5}
    registers = [0] * 5 + [value] + [0] * 10
    units, result = instant([i(Opcode.VECTOR, **vector, bounded=1), HALT], registers=registers)
    _, plain = instant([i(Opcode.VECTOR, **vector), HALT], registers=registers)
    elements = min(max(value, 1), 12)
    [(unit, payload, _)] = units.taken
    assert unit == "vector" and payload["count"] == -(-elements // 4)
    assert payload["tail"] == (elements - 1) % 4
    assert result["cycles"] == plain["cycles"] + 1


def test_an_expand_takes_one_cycle_more_than_a_load():
    """Two registers are read, one after the other."""
    _, load = instant([i(Opcode.LOAD, memory=1, count=1), HALT])
    units, result = instant([expand(most=9), HALT])
    assert result["cycles"] == load["cycles"] + 1
    assert [payload["count"] for _, payload, _ in units.taken] == [1]


def test_loading_a_program_over_an_expand_is_no_expand():
    """The word at hand when a run begins is left over from the one before."""
    dut = Issue(TINY.vector_lanes)

    async def bench(ctx):
        ctx.set(dut.word, expand(most=3).encode())
        ctx.set(dut.preload, 1)
        assert ctx.get(dut.commands.load.valid) and not ctx.get(dut.commands.weights.valid)

    simulate(dut, bench)


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_instructions_stop_at_their_address(case):
    program, pc = ILLEGAL[case]
    units, result = instant(program)
    assert (units.illegal, result["pc"], units.taken, units.halts) == (1, pc, [], 0)


def test_halt_inside_loops_leaves_none_open():
    units, _ = instant([*[LOOP] * 4, HALT], starts=2)
    assert units.halts == 2 and not units.illegal


def test_a_loop_of_no_pass_fits_inside_four_others():
    nothing = i(Opcode.LOOP, count=0, end=6)
    program = [
        *[i(Opcode.LOOP, count=1, end=9)] * 4,
        nothing,
        i(Opcode.SET, target=2, value=9),
        i(Opcode.END),
        *[i(Opcode.END)] * 4,
        HALT,
    ]
    units, result = instant(program)
    assert units.halts == 1 and result["registers"][2] == 0


@pytest.mark.parametrize(
    "entry, length", [(2, 2), (0, 0), (1 << 16, 1 << 20), (0, TINY.program_depth + 1)]
)
def test_a_start_outside_the_program_is_illegal(entry, length):
    units, result = instant([HALT, HALT], entry=entry, length=length)
    assert units.illegal and not units.halts and result["pc"] == entry % (1 << 17)


def test_instructions_loaded_by_the_program_are_not_stale():
    """The LOAD is answered late, and then the instruction after it is another one."""
    program = [
        i(Opcode.LOAD, memory=Memory.PROGRAM, address=1, count=1),
        i(Opcode.SET, target=1, value=1),
        HALT,
    ]
    new = i(Opcode.SET, target=1, value=2).encode()
    dut = Sequencer(TINY)

    async def bench(ctx):
        for address, word in enumerate(p.encode() for p in program):
            await write(ctx, address, word)
        ctx.set(dut.length, len(program))
        ctx.set(dut.commands.load.ready, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick().until(dut.commands.load.valid)
        await ctx.tick().repeat(10)
        await write(ctx, 1, new)
        ctx.set(dut.commands.completed.load, 1)
        await ctx.tick()
        ctx.set(dut.commands.completed.load, 0)
        await ctx.tick().until(dut.halted)
        ctx.set(dut.registers.read, 1)
        await ctx.tick()
        assert ctx.get(dut.registers.data) == 2

    async def write(ctx, address, word):
        ctx.set(dut.program.valid, 1)
        ctx.set(dut.program.address, address)
        ctx.set(dut.program.data, word)
        await ctx.tick()
        ctx.set(dut.program.valid, 0)

    simulate(dut, bench)
