"""Vector unit bench: random VECTORs, loader items and stores against one element's arithmetic."""

from __future__ import annotations

import os
from collections import deque
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from espalier.spec import numerics
from espalier.spec.config import SCALARS, SUM_BITS, preset
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
from espalier_hw.engine import DRAIN_LATENCY
from espalier_hw.interfaces import VECTOR_COMMAND, drained_bits, item_layout, stored_chunk

from .host import start_clock
from .streams import Sink, Strobes, elements, pack, unpack, until
from .streams import Source as StreamSource

CONFIG = preset(os.environ["ESPALIER_CONFIG"])
SEED = int(os.environ["COCOTB_RANDOM_SEED"])
CHUNKS = 16
"""Chunks of each memory that the bench uses."""
LANES = CONFIG.vector_lanes
PLANES = {Source.DRAIN: 1, Source.DRAIN_PLANES: 2}


def wrap(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


def saturate(value: int) -> int:
    return clip(value, VALUE_MIN, VALUE_MAX)


class Model:
    """The memories as lists of chunks, and one VECTOR as a loop over its elements."""

    def __init__(self) -> None:
        self.vector = [[0] * LANES for _ in range(CHUNKS)]
        self.sums = [[0] * LANES for _ in range(CHUNKS)]
        self.parameters = [
            [{"multiplier": 0, "shift": 0, "bias": 0}] * LANES
            for _ in range(CONFIG.parameter_depth)
        ]
        self.tables = [{"base": 0, "slope": 0}] * depth(CONFIG, Memory.TABLES)
        self.columns: list[tuple[int, int, list[int]]] = []
        self.stored: list[tuple[int, list[int]]] = []

    def item(self, memory: Memory, address: int, part: int, data: int) -> None:
        if memory is Memory.VECTOR:
            self.vector[address][4 * part : 4 * part + 4] = elements(data, 4, 16, is_signed=True)
        elif memory is Memory.SUMS:
            self.sums[address][2 * part : 2 * part + 2] = elements(data, 2, 32, is_signed=True)
        elif memory is Memory.PARAMETERS:
            self.parameters[address] = list(self.parameters[address])
            self.parameters[address][part] = PARAMETER.unpack(data)
        else:
            self.tables[address] = TABLE_ENTRY.unpack(data)

    def execute(self, f: dict[str, int], drained: list[list[int]]) -> None:
        """`drained` holds, for each chunk, the high plane's rows, then the low plane's."""
        results: list[int] = []
        for i in range(f["count"]):
            total = [self._total(f, i, lane, drained) for lane in range(LANES)]
            value = [self._value(f, i, lane, t) for lane, t in enumerate(total)]
            if f["sums"] in (Sums.ACCUMULATE, Sums.WRITE):
                self.sums[f["sum_address"] + i] = total
            if f["write_vector"]:
                self.vector[f["vector_address"] + i] = value
            counts = f["tail"] + 1 if i == f["count"] - 1 else LANES
            value[counts:] = [0] * (LANES - counts)
            results += value[:counts]
            x = [clip(numerics.column_input(v), -127, 127) for v in value]
            if f["write_columns"]:
                word, array = divmod(i * CONFIG.chunk_groups, CONFIG.arrays)
                self.columns.append((array, f["column_address"] + word, x))
            if f["store"]:
                sent = {Store.SUMS: total, Store.VALUES: value, Store.COLUMNS: x}
                self.stored.append((f["store"], list(sent[Store(f["store"])])))

        if f["sums"] >= Sums.MAXIMUM:
            self._reduce(f, results)

    def _reduce(self, f: dict[str, int], x: list[int]) -> None:
        scalar, gain = reduction_target(f["sum_address"])
        if f["sums"] == Sums.MAXIMUM:
            result = numerics.maximum_scalar(max(x), gain)
        elif f["sums"] == Sums.MASS:
            mass = sum(clip(numerics.column_input(v), -127, 127) for v in x)
            result = numerics.mass_scalar(mass, gain)
        else:
            sums = sum(x), sum(v * v for v in x)
            result = numerics.moments_scalar(*sums, len(x), gain)
        multiplier, shift, bias = result
        row = {"multiplier": multiplier, "shift": SHIFTS.index(shift), "bias": bias}
        self.parameters[CONFIG.first_scalar + scalar] = [row] * LANES

    def _total(self, f: dict[str, int], i: int, lane: int, drained: list[list[int]]) -> int:
        total = 0
        if f["source"] == Source.OPERAND:
            total = self.vector[f["operand0"] + i][lane]
        elif planes := PLANES.get(f["source"], 0):
            rows = drained[i * planes : (i + 1) * planes]
            total = sum(16**plane * row[lane] for plane, row in enumerate(reversed(rows)))
        if f["sums"] in (Sums.ADD, Sums.ACCUMULATE):
            total += self.sums[f["sum_address"] + i][lane]
        return wrap(total, SUM_BITS)

    def _value(self, f: dict[str, int], i: int, lane: int, total: int) -> int:
        at = [self.vector[f[f"operand{k}"] + i][lane] for k in range(3)]
        if f["scale"]:
            scalar = f["scale"] == Scale.SCALAR
            chunk = CONFIG.first_scalar + f["parameters"] if scalar else f["parameters"] + i
            scale = numerics.scale_by_scalar if scalar else numerics.scale_sum
            row = self.parameters[chunk][lane]
            total = scale(total, row["multiplier"], SHIFTS[row["shift"]], row["bias"])
        value = saturate(total)
        if f["combine"] == Combine.ADD:
            value = saturate(value + at[1])
        elif f["combine"] == Combine.MULTIPLY:
            value = saturate(numerics.multiply_values(value, at[1]))
        elif f["combine"] == Combine.AMPLIFY:
            value = saturate(numerics.amplify(value, at[1]))
        if f["function"] == Function.RELU:
            value = max(value, 0)
        elif f["function"] >= Function.TABLE0:
            table = (f["function"] - Function.TABLE0) * TABLE_SEGMENTS
            segment = self.tables[table + numerics.table_segment(value)]
            value = saturate(numerics.table_value(value, segment["base"], segment["slope"]))
        if f["finish"] == Finish.INTERPOLATE:
            value = saturate(numerics.interpolate(value, at[2], at[0]))
        elif f["finish"] == Finish.ADD:
            value = saturate(value + at[2])
        return value


class Bench:
    """Commands and items in, drains answered, columns and stored chunks noted."""

    def __init__(self, dut: Any, stall: float):
        self.dut, self.random, self.model = dut, Random(SEED), Model()
        self.commands = StreamSource(dut, "commands", self.random, stall)
        self.items = StreamSource(dut, "items", self.random, stall)
        self.store = Sink(dut, "store", self.random, stall)
        self.columns = Strobes(
            dut, "columns__valid", "columns__array", "columns__address", "columns__data"
        )
        self.completed = Strobes(dut, "completed")
        self.rows: list[list[int]] = []
        self.requests: list[int] = []
        self.asked: list[int] = []
        dut.drain__sums.value = 0
        cocotb.start_soon(self._engine())

    async def _engine(self) -> None:
        """Answer drain requests with random rows, `DRAIN_LATENCY` cycles later."""
        dut, width = self.dut, drained_bits(CONFIG)
        due: deque[int | None] = deque([None] * (DRAIN_LATENCY - 1))
        while True:
            await RisingEdge(dut.clk)
            asked = dut.rst.value == 0 and bool(dut.drain__valid.value)
            answer = self.random.getrandbits(width * LANES)
            if asked:
                self.requests.append(int(dut.drain__chunk.value))
                self.rows.append(elements(answer, LANES, width, is_signed=True))
            due.append(answer if asked else None)
            now = due.popleft()
            # Between answers the port holds noise.
            dut.drain__sums.value = answer ^ 1 if now is None else now

    async def power_up(self) -> None:
        await start_clock(self.dut)
        for memory in (Memory.VECTOR, Memory.SUMS, Memory.PARAMETERS, Memory.TABLES):
            addresses = depth(CONFIG, memory) if memory is Memory.TABLES else CHUNKS
            for address in range(addresses):
                for part in range(items_per_address(CONFIG, memory)):
                    await self.load(memory, address, part)

        for scalar in range(SCALARS):
            kind = self.random.choice([Sums.MAXIMUM, Sums.MASS, Sums.MOMENTS])
            address = reduction_address(scalar, self.random.randint(0, MOST_GAIN[kind]))
            f = {**self.draw(), "sums": kind, "sum_address": address, "scale": Scale.ROWS}
            await self.execute({**f, "parameters": 0})

    async def load(self, memory: Memory, address: int, part: int) -> None:
        draw = self.random
        if memory is Memory.SUMS:
            values = [draw.randrange(-(1 << 26), 1 << 26) >> draw.randrange(20) for _ in range(2)]
            data = sum((value & 0xFFFF_FFFF) << (32 * i) for i, value in enumerate(values))
        elif memory is Memory.VECTOR:
            data = draw.getrandbits(64)
        else:
            data = draw.getrandbits(40 if memory is Memory.PARAMETERS else 32)
        values = {"memory": memory, "address": address, "part": part, "data": data}
        await self.items.send(pack(item_layout(CONFIG), values))
        self.model.item(memory, address, part, data)

    def draw(self) -> dict[str, int]:
        """A random VECTOR whose result does not overlap its operands in part."""
        draw, half = self.random, CHUNKS // 2
        n = draw.randint(1, half)
        f = dict.fromkeys(VECTOR_COMMAND.members, 0)
        f.update(
            count=n,
            source=draw.choice(list(Source)),
            tail=LANES - 1,
            sums=draw.choice(list(Sums)),
            drain=draw.randrange(8),
            plane_stride=8,
            scale=draw.choice(list(Scale)),
            combine=draw.choice(list(Combine)),
            finish=draw.choice(list(Finish)),
            function=draw.choice([f for f in Function if f < Function.TABLE0 + CONFIG.tables]),
            write_vector=draw.randint(0, 1),
            write_columns=draw.randint(0, 1),
            column_address=draw.randrange(8),
            store=draw.choice(list(Store)),
            vector_address=half + draw.randint(0, half - n),
        )
        for name in ("operand0", "operand1", "operand2"):
            f[name] = draw.randint(0, half - n)
        for name in ("sum_address", "parameters"):
            f[name] = draw.randint(0, CHUNKS - n)
        if f["scale"] == Scale.SCALAR:
            f["parameters"] = draw.randrange(SCALARS)
        if f["sums"] >= Sums.MAXIMUM:
            gain = draw.randint(0, MOST_GAIN[f["sums"]])
            f["sum_address"] = reduction_address(draw.randrange(SCALARS), gain)
        if draw.random() < 0.4:
            f.update(tail=draw.randrange(LANES), store=Store.NONE)
        return f

    async def execute(self, f: dict[str, int]) -> None:
        """One VECTOR, from its command to its completion."""
        issued, first = len(self.completed.seen), len(self.rows)
        await self.commands.send(pack(VECTOR_COMMAND, f))
        await until(self.dut, lambda: len(self.completed.seen) == issued + 1)
        self.asked += [
            f["drain"] + plane * f["plane_stride"] + i
            for i in range(f["count"])
            for plane in reversed(range(PLANES.get(f["source"], 0)))
        ]
        self.model.execute(f, self.rows[first:])

    async def check(self) -> None:
        await until(self.dut, lambda: len(self.store.received) >= len(self.model.stored))
        columns = [
            (array, address, elements(bits, LANES, 8, is_signed=True))
            for array, address, bits in self.columns.seen
        ]
        assert columns == self.model.columns
        assert [self._stored(bits) for bits in self.store.received] == self.model.stored
        assert self.requests == self.asked

    @staticmethod
    def _stored(bits: int) -> tuple[int, list[int]]:
        chunk = unpack(stored_chunk(CONFIG), bits)
        kind, data = chunk["kind"], chunk["data"]
        if kind == Store.COLUMNS:
            mask = (1 << 8 * CONFIG.group) - 1
            groups = [data >> 64 * i & mask for i in range(CONFIG.chunk_groups)]
            return kind, [x for g in groups for x in elements(g, CONFIG.group, 8, is_signed=True)]
        width = 32 if kind == Store.SUMS else 16
        return kind, elements(data, LANES, width, is_signed=True)


async def _commands(dut: Any, stall: float, count: int) -> None:
    bench = Bench(dut, stall)
    await bench.power_up()
    for _ in range(count):
        await bench.execute(bench.draw())
        if bench.random.random() < 0.3:
            memory = bench.random.choice([Memory.VECTOR, Memory.SUMS, Memory.PARAMETERS])
            part = bench.random.randrange(items_per_address(CONFIG, memory))
            await bench.load(memory, bench.random.randrange(CHUNKS), part)
    await bench.check()


@cocotb.test()
async def commands_without_stalls(dut: Any) -> None:
    await _commands(dut, 0.0, 40)


@cocotb.test()
async def commands_with_stalls(dut: Any) -> None:
    await _commands(dut, 0.5, 40)


@cocotb.test()
async def independent_commands_overlap(dut: Any) -> None:
    """Commands that share nothing run back to back; drains, stores and columns keep their order."""
    bench = Bench(dut, 0.3)
    await bench.power_up()
    drawn: list[dict[str, int]] = []
    issued, first, count = len(bench.completed.seen), len(bench.rows), 20
    for scalar in range(count):
        f = bench.draw()
        f.update(sums=Sums.NONE, write_vector=0)
        if bench.random.random() < 0.5:
            f.update(sums=Sums.MOMENTS, sum_address=reduction_address(scalar, 12))
        if f["scale"] == Scale.SCALAR:
            f["parameters"] = bench.random.randrange(count, SCALARS)
        drawn.append(f)
        await bench.commands.send(pack(VECTOR_COMMAND, f))
    await until(dut, lambda: len(bench.completed.seen) == issued + count)
    for f in drawn:
        rows = f["count"] * PLANES.get(f["source"], 0)
        bench.model.execute(f, bench.rows[first : first + rows])
        first += rows
    bench.asked = bench.requests
    assert first == len(bench.rows)
    await bench.check()
