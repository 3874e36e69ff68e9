"""The sequencer with units that answer after random delays: order, waits, operands, loops,
faults, timing.
"""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from axi_model import simulate

from espalier.spec import isa
from espalier.spec.config import TINY
from espalier.spec.isa import NO_WAIT, UNITS, Instruction, Opcode, Store
from espalier.spec.memory import Memory
from espalier_hw.issue import Issue
from espalier_hw.sequencer import Sequencer

MASK = 0xFFFFFFFF


def i(opcode, **fields):
    return Instruction(opcode, fields)


HALT = i(Opcode.HALT)


def meaning(program, registers, entry=0):
    """Executes in order: [(unit, expected payload, instruction address)], registers, instructions
    executed.
    """
    r, loops, pc, issued, executed = list(registers), [], entry, [], 0
    while True:
        f = {name: 0 for name in (x.name for x in isa.LAYOUTS[program[pc].opcode].fields)} | dict(
            program[pc].fields
        )
        executed, following = executed + 1, pc + 1
        match program[pc].opcode:
            case Opcode.HALT:
                return issued, r, executed
            case Opcode.SET:
                r[f["target"]] = ((r[f["source"]] if f["use_source"] else 0) + f["value"]) & MASK
            case Opcode.LOOP:
                count = r[f["register"]] if f["use_register"] else f["count"]
                if count:
                    loops.append([pc + 1, count])
                else:
                    following = f["end"] + 1
            case Opcode.END:
                loops[-1][1] -= 1
                if loops[-1][1]:
                    following = loops[-1][0]
                else:
                    loops.pop()
            case Opcode.LOAD:
                ddr = (r[f["register"]] + f["offset"]) & MASK
                r[f["register"]] = (r[f["register"]] + f["increment"]) & MASK
                if f["memory"] == Memory.WEIGHTS:
                    own = {"kind": f["memory"], "ddr": ddr, "expand": 0}
                    issued.append(("weights", {**f, **own}, pc))
                else:
                    issued.append(("load", {**f, "ddr": ddr}, pc))
            case Opcode.EXPAND:
                own = {
                    "count": min(max(r[f["tokens"]], 1), f["most"]),
                    "ddr": (r[f["register"]] + f["offset"]) & MASK,
                    "expand": 1,
                }
                issued.append(("weights", {**f, **own}, pc))
            case Opcode.PRODUCT:
                issued.append(("engine", f, pc))
            case Opcode.VECTOR:
                issued.append(("vector", f, pc))
                if f["store"]:
                    payload = {
                        "ddr": r[f["register"]],
                        "chunks": f["count"],
                        "kind": f["store"],
                    }
                    issued.append(("store", payload, pc))
        pc = following


class Units:
    """Fake units: take commands after random pauses, complete them in order after random delays,
    note it all.
    """

    def __init__(self, dut, program, rng, delay=12, stall=0.5):
        self.dut, self.program, self.rng, self.delay, self.stall = dut, program, rng, delay, stall
        self.taken, self.outstanding, self.most = [], Counter(), Counter()
        self.executed = self.halts = self.illegal = 0

    async def bench(self, ctx):
        dut, rng, cycle = self.dut, self.rng, 0
        running = {unit: deque() for unit in UNITS}
        streams = {unit: getattr(dut.commands, unit) for unit in UNITS}
        held = {}
        while True:
            completed = 0
            for number, unit in enumerate(UNITS):
                ctx.set(
                    streams[unit].ready, self.outstanding[unit] < 4 and rng.random() >= self.stall
                )
                if running[unit] and running[unit][0] <= cycle:
                    completed |= 1 << number
                    running[unit].popleft()
            ctx.set(dut.commands.completed.as_value(), completed)
            signals = [
                s
                for unit in UNITS
                for s in (streams[unit].valid, streams[unit].ready, streams[unit].payload)
            ]
            *_, issued, halted, illegal = await ctx.tick().sample(
                *signals, dut.issued, dut.halted, dut.illegal
            )
            values = _[2:]
            for number, unit in enumerate(UNITS):
                valid, ready, payload = values[3 * number : 3 * number + 3]
                offered = (
                    {name: payload[name] for name, _shape in payload.shape()} if valid else None
                )
                assert held.get(unit) in (None, offered), f"{unit} command must stay"
                held[unit] = offered if not ready else None
                if valid and ready:
                    self.taken.append((unit, offered, dict(self.outstanding)))
                    start = max([cycle, *running[unit]])
                    running[unit].append(start + rng.randint(1, self.delay))
            for number, unit in enumerate(UNITS):
                valid, ready, _payload = values[3 * number : 3 * number + 3]
                self.outstanding[unit] += (valid and ready) - (completed >> number & 1)
                self.most[unit] = max(self.most[unit], self.outstanding[unit])
            if halted:
                assert not any(self.outstanding.values()), "HALT must wait for all units"
            self.executed += issued
            self.halts += halted
            self.illegal = illegal
            cycle += 1


def run(program, registers=(0,) * 16, seed=0, entry=0, length=None, starts=1, **settings):
    """Load `program`, run it `starts` times; returns the units and a dictionary of the registers
    afterwards, the cycles from start to halt and pc.
    """
    rng = random.Random(seed)
    dut = Sequencer(TINY)
    units = Units(dut, program, rng, **settings)
    result = {}

    async def bench(ctx):
        for address, instruction in enumerate(program):
            word = instruction if isinstance(instruction, int) else instruction.encode()
            ctx.set(dut.program.valid, 1)
            ctx.set(dut.program.address, address)
            ctx.set(dut.program.data, word)
            await ctx.tick()
        ctx.set(dut.program.valid, 0)
        for index, value in enumerate(registers):
            ctx.set(dut.registers.write, 1)
            ctx.set(dut.registers.target, index)
            ctx.set(dut.registers.value, value)
            await ctx.tick()
        ctx.set(dut.registers.write, 0)
        ctx.set(dut.entry, entry)
        ctx.set(dut.length, len(program) if length is None else length)
        for _ in range(starts):
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            cycles = 1
            while not ctx.get(dut.halted) and not ctx.get(dut.illegal):
                await ctx.tick()
                cycles += 1
            await ctx.tick()
        result["cycles"], result["pc"] = cycles, ctx.get(dut.pc)
        result["registers"] = []
        for index in range(16):
            ctx.set(dut.registers.read, index)
            await ctx.tick()
            result["registers"].append(ctx.get(dut.registers.data))

    simulate(dut, bench, units.bench)
    return units, result


def random_program(rng):
    """Nested loops of random instructions with random waits; loop ends are filled in."""
    program = []

    def waits(opcode=Opcode.SET):
        units = isa.waits_for(opcode)
        return {f"wait_{unit}": rng.choice((0, 1, 2, NO_WAIT, NO_WAIT, NO_WAIT)) for unit in units}

    def block(depth):
        for _ in range(rng.randint(1, 4)):
            kind = rng.choice(
                [
                    *("set", "load", "expand", "product", "vector", "vector"),
                    "loop" if depth < 4 else "set",
                ]
            )
            number = rng.randrange(15)
            if kind == "set":
                program.append(
                    i(
                        Opcode.SET,
                        **waits(),
                        target=number,
                        use_source=rng.randrange(2),
                        source=rng.randrange(16),
                        value=rng.randint(-100, 100) * 16,
                    )
                )
            elif kind == "load":
                program.append(
                    i(
                        Opcode.LOAD,
                        **waits(),
                        memory=rng.randint(1, 7),
                        address=rng.randrange(64),
                        count=rng.randint(1, 99),
                        register=number,
                        offset=rng.getrandbits(32),
                        increment=rng.randint(-4096, 4096),
                    )
                )
            elif kind == "expand":
                program.append(
                    i(
                        Opcode.EXPAND,
                        **waits(),
                        kind=rng.randrange(2),
                        address=rng.randrange(64),
                        register=number,
                        offset=rng.getrandbits(32),
                        tokens=rng.choice((number, 14, 15)),
                        most=rng.choice((1, rng.randint(1, 100), 4095)),
                        **{name: rng.randint(1, 31) for name in ("heads", "groups", "slots")},
                        slot=rng.randrange(32),
                    )
                )
            elif kind == "product":
                program.append(
                    i(
                        Opcode.PRODUCT,
                        **waits(),
                        mode=rng.randrange(4),
                        threshold=rng.randrange(256),
                        groups=rng.randint(1, 9),
                        activations=rng.randrange(99),
                        last=5,
                        descriptors=7,
                    )
                )
            elif kind == "vector":
                program.append(
                    i(
                        Opcode.VECTOR,
                        **waits(Opcode.VECTOR),
                        count=rng.randint(1, 9),
                        source=rng.randrange(3),
                        drain=rng.randrange(99),
                        store=rng.randrange(4),
                        register=number,
                    )
                )
            else:
                at = len(program)
                program.append(None)
                block(depth + 1)
                program.append(i(Opcode.END, **waits()))
                fields = rng.choice(
                    [{"count": rng.randint(0, 2)}, {"use_register": 1, "register": 15}]
                )
                program[at] = i(Opcode.LOOP, **waits(), **fields, end=len(program) - 1)

    while len(program) < 6:
        block(0)
    return [*program, HALT]


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_in_order_and_with_waits(seed):
    rng = random.Random(seed)
    program = random_program(rng)
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
