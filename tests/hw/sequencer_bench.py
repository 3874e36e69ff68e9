"""The sequencer's plain-Python meaning, a bench with units that answer after random delays, and
random programs for both."""

from __future__ import annotations

import random
from collections import Counter, deque

from axi_model import simulate

from espalier.spec import isa
from espalier.spec.config import TINY
from espalier.spec.isa import NO_WAIT, UNITS, Instruction, Opcode
from espalier.spec.memory import Memory
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


class RandomProgram:
    """Nested loops of random instructions with random waits: `code`, a HALT at its end."""

    KINDS = ("set", "load", "expand", "product", "vector", "vector")
    DEEPEST = 4

    def __init__(self, rng):
        self.rng, self.code = rng, []
        while len(self.code) < 6:
            self.block(0)
        self.code.append(HALT)

    def block(self, depth):
        for _ in range(self.rng.randint(1, 4)):
            kind = self.rng.choice([*self.KINDS, "loop" if depth < self.DEEPEST else "set"])
            number = self.rng.randrange(15)
            if kind == "loop":
                self.loop(depth)
            else:
                getattr(self, kind)(number)

    def add(self, opcode, **fields):
        self.code.append(i(opcode, **fields))

    def waits(self, opcode=Opcode.SET):
        limits = (0, 1, 2, NO_WAIT, NO_WAIT, NO_WAIT)
        return {f"wait_{unit}": self.rng.choice(limits) for unit in isa.waits_for(opcode)}

    def set(self, register):
        self.add(
            Opcode.SET,
            **self.waits(),
            target=register,
            use_source=self.rng.randrange(2),
            source=self.rng.randrange(16),
            value=self.rng.randint(-100, 100) * 16,
        )

    def load(self, register):
        self.add(
            Opcode.LOAD,
            **self.waits(),
            memory=self.rng.randint(1, 7),
            address=self.rng.randrange(64),
            count=self.rng.randint(1, 99),
            register=register,
            offset=self.rng.getrandbits(32),
            increment=self.rng.randint(-4096, 4096),
        )

    def expand(self, register):
        self.add(
            Opcode.EXPAND,
            **self.waits(),
            kind=self.rng.randrange(2),
            address=self.rng.randrange(64),
            register=register,
            offset=self.rng.getrandbits(32),
            tokens=self.rng.choice((register, 14, 15)),
            most=self.rng.choice((1, self.rng.randint(1, 100), 4095)),
            **{name: self.rng.randint(1, 31) for name in ("heads", "groups", "slots")},
            slot=self.rng.randrange(32),
        )

    def product(self, _register):
        self.add(
            Opcode.PRODUCT,
            **self.waits(),
            mode=self.rng.randrange(4),
            threshold=self.rng.randrange(256),
            groups=self.rng.randint(1, 9),
            activations=self.rng.randrange(99),
            last=5,
            descriptors=7,
        )

    def vector(self, register):
        self.add(
            Opcode.VECTOR,
            **self.waits(Opcode.VECTOR),
            count=self.rng.randint(1, 9),
            source=self.rng.randrange(3),
            drain=self.rng.randrange(99),
            store=self.rng.randrange(4),
            register=register,
        )

    def loop(self, depth):
        """A block inside LOOP and END; where the END lies is known after the block."""
        first = len(self.code)
        self.code.append(None)
        self.block(depth + 1)
        self.add(Opcode.END, **self.waits())
        passes = [{"count": self.rng.randint(0, 2)}, {"use_register": 1, "register": 15}]
        fields = {**self.rng.choice(passes), **self.waits(), "end": len(self.code) - 1}
        self.code[first] = i(Opcode.LOOP, **fields)
