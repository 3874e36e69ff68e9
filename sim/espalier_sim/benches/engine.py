"""Engine bench: random memories, products, column writes and drains against plain sums."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from espalier.spec.config import ACCUMULATOR_BITS, SLOTS, preset
from espalier.spec.isa import Mode
from espalier.spec.memory import ENTRY, Memory, descriptor
from espalier.spec.numerics import COLUMN_MAX
from espalier_hw.engine import DRAIN_LATENCY
from espalier_hw.interfaces import PRODUCT_COMMAND, drained_bits, item_layout

from .host import start_clock
from .streams import Source, Strobes, elements, pack, until

CONFIG = preset(os.environ["ESPALIER_CONFIG"])
SEED = int(os.environ["COCOTB_RANDOM_SEED"])
WORDS, GROUPS = 40, 6
EVENTS = ("words", "visits", "skipped")


class Model:
    """Slots and last-sent values as nested lists; a product is three loops."""

    def __init__(self) -> None:
        arrays = range(CONFIG.arrays)
        self.weights = [[[(0, 0)] * CONFIG.lanes for _ in range(WORDS)] for _ in arrays]
        self.descriptors = [[(0, [0] * CONFIG.group)] * GROUPS for _ in arrays]
        self.x = [[[0] * CONFIG.group for _ in range(GROUPS)] for _ in arrays]
        self.last = [[[0] * CONFIG.group for _ in range(GROUPS)] for _ in arrays]
        self.slots = [[[0] * CONFIG.lanes for _ in range(SLOTS)] for _ in arrays]
        self.events = dict.fromkeys(EVENTS, 0)

    def product(
        self, mode: int, threshold: int, groups: int, x: int, last: int, table: int
    ) -> None:
        for array in range(CONFIG.arrays):
            for g in range(groups):
                if mode == Mode.CLEAR:
                    self.last[array][last + g] = [0] * CONFIG.group
                else:
                    self._group(array, mode, threshold, x + g, last + g, table + g)

    def _group(self, array: int, mode: int, threshold: int, x: int, last: int, table: int) -> None:
        word, counts = self.descriptors[array][table]
        for column, count in enumerate(counts):
            value = self.x[array][x][column]
            delta = value if mode == Mode.PLAIN else value - self.last[array][last][column]
            if abs(delta) > (0 if mode == Mode.PLAIN else threshold):
                self._column(array, word, count, delta)
                if mode == Mode.COMMIT:
                    self.last[array][last][column] = value
            else:
                self.events["skipped"] += 1
            word += count

    def _column(self, array: int, word: int, count: int, delta: int) -> None:
        visits = 1 + (abs(delta) > COLUMN_MAX)
        self.events["visits"] += visits
        self.events["words"] += visits * count
        half = 1 << (ACCUMULATOR_BITS - 1)
        for entries in self.weights[array][word : word + count]:
            for lane, (digit, slot) in enumerate(entries):
                total = self.slots[array][slot][lane] + digit * delta
                self.slots[array][slot][lane] = (total + half) % (2 * half) - half

    def drain(self, chunk: int) -> list[int]:
        slot, part = divmod(chunk, CONFIG.slot_chunks)
        first = part * CONFIG.vector_lanes
        sums = []
        for lane in range(first, first + CONFIG.vector_lanes):
            sums.append(sum(array[slot][lane] for array in self.slots))
            for array in self.slots:
                array[slot][lane] = 0
        return sums


class Bench:
    """Drivers of loads, products and drains; every one changes the model as well."""

    def __init__(self, dut: Any, stall: float):
        self.dut, self.random, self.model = dut, Random(SEED), Model()
        self.items = Source(dut, "items", self.random, stall)
        self.commands = Source(dut, "commands", self.random, stall)
        self.completed = Strobes(dut, "completed")
        self.issued = 0
        self.counted = dict.fromkeys(EVENTS, 0)
        for name in ("array", "address", "data", "valid"):
            getattr(dut, f"columns__{name}").value = 0
        for name in ("array", "address", "first", "count", "quads", "valid"):
            getattr(dut, f"weights__{name}").value = 0
        drain = ("drain__valid", "drain__chunk", "drain__follows", "drain__continues")
        for name in ("clear", "reset", *drain):
            getattr(dut, name).value = 0

    async def power_up(self) -> None:
        await start_clock(self.dut)
        cocotb.start_soon(self._count())
        self.dut.clear.value = 1
        await ClockCycles(self.dut.clk, 2)
        self.dut.clear.value = 0
        await until(self.dut, lambda: not self.dut.clearing.value)
        for array in range(CONFIG.arrays):
            await self.load_weights(array)
            for group in range(GROUPS):
                await self.load_descriptor(array, group)
                await self.load_activations(array, group)
        await self.product(Mode.CLEAR, 0, GROUPS, 0, 0, 0)
        await self.finish()

    async def _count(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            for name in EVENTS:
                self.counted[name] += int(getattr(self.dut, f"events__{name}").value)

    async def load_weights(self, array: int) -> None:
        """All words of one array, one quad a write."""
        draw, dut = self.random, self.dut
        for address in range(WORDS):
            entries = [(draw.randint(-8, 7), draw.randrange(SLOTS)) for _ in range(CONFIG.lanes)]
            self.model.weights[array][address] = entries
            for quad in range(CONFIG.lanes // 4):
                bits = 0
                for i, (digit, slot) in enumerate(entries[4 * quad : 4 * quad + 4]):
                    bits |= ENTRY.pack({"digit": digit, "slot": slot}) << (i * ENTRY.width)
                values = {"array": array, "address": address, "first": quad, "count": 1}
                for name, value in {**values, "quads": bits, "valid": 1}.items():
                    getattr(dut, f"weights__{name}").value = value
                await RisingEdge(dut.clk)
        dut.weights__valid.value = 0

    async def _item(self, memory: Memory, array: int, address: int, data: int) -> None:
        values = {"memory": memory, "array": array, "address": address, "data": data}
        await self.items.send(pack(item_layout(CONFIG), values))

    async def load_descriptor(self, array: int, group: int) -> None:
        counts = [self.random.randint(0, 5) for _ in range(CONFIG.group)]
        base = self.random.randint(0, WORDS - sum(counts))
        self.model.descriptors[array][group] = (base, counts)
        fields = {"base": base, **{f"count{i}": count for i, count in enumerate(counts)}}
        await self._item(Memory.DESCRIPTORS, array, group, descriptor(CONFIG).pack(fields))

    def columns(self, count: int) -> list[int]:
        """Column inputs with many zeros and both ends of the range."""
        values = [0, 0, COLUMN_MAX, -COLUMN_MAX, self.random.randint(-COLUMN_MAX, COLUMN_MAX)]
        return [self.random.choice(values) for _ in range(count)]

    async def load_activations(self, array: int, group: int) -> None:
        x = self.columns(CONFIG.group)
        self.model.x[array][group] = x
        data = sum((value & 255) << (8 * i) for i, value in enumerate(x))
        await self._item(Memory.ACTIVATIONS, array, group, data)

    async def write_columns(self, group: int) -> None:
        """New values for one group of all arrays, chunk after chunk as from the vector unit."""
        dut = self.dut
        for array in range(0, CONFIG.arrays, CONFIG.chunk_groups):
            x = self.columns(CONFIG.vector_lanes)
            for i in range(CONFIG.chunk_groups):
                self.model.x[array + i][group] = x[i * CONFIG.group : (i + 1) * CONFIG.group]
            dut.columns__array.value = array
            dut.columns__address.value = group
            dut.columns__data.value = sum((value & 255) << (8 * i) for i, value in enumerate(x))
            dut.columns__valid.value = 1
            await RisingEdge(dut.clk)
        dut.columns__valid.value = 0
        # A command may be taken the cycle after what it reads was written.
        await RisingEdge(dut.clk)

    async def product(
        self, mode: int, threshold: int, groups: int, x: int, last: int, table: int
    ) -> None:
        values = {
            "mode": mode,
            "threshold": threshold,
            "groups": groups,
            "activations": x,
            "last": last,
            "descriptors": table,
        }
        self.issued += 1
        await self.commands.send(pack(PRODUCT_COMMAND, values))
        self.model.product(mode, threshold, groups, x, last, table)

    async def random_product(self) -> None:
        groups = self.random.randint(1, GROUPS)
        first = [self.random.randint(0, GROUPS - groups) for _ in range(2)]
        mode = self.random.choice(list(Mode))
        # Last-sent values belong to columns: the same first group as the activations.
        await self.product(
            mode, self.random.choice([0, 5, 130]), groups, first[0], first[0], first[1]
        )

    async def finish(self) -> None:
        await until(self.dut, lambda: len(self.completed.seen) == self.issued)

    async def check_slots(self) -> None:
        """Drain every chunk, one a cycle, and compare."""
        dut, chunks = self.dut, range(CONFIG.tile_chunks)
        answers = []
        for cycle in range(len(chunks) + DRAIN_LATENCY + 1):
            dut.drain__valid.value = int(cycle < len(chunks))
            dut.drain__chunk.value = min(cycle, len(chunks) - 1)
            await RisingEdge(dut.clk)
            answers.append(int(dut.drain__sums.value))
        for chunk in chunks:
            bits = answers[chunk + DRAIN_LATENCY]
            sums = elements(bits, CONFIG.vector_lanes, drained_bits(CONFIG), is_signed=True)
            assert sums == self.model.drain(chunk), f"chunk {chunk}"


async def _products(dut: Any, stall: float) -> None:
    bench = Bench(dut, stall)
    await bench.power_up()
    for _ in range(5):
        for _ in range(3):
            await bench.random_product()
        await bench.finish()
        await bench.check_slots()
        await bench.write_columns(bench.random.randrange(GROUPS))
    assert bench.counted == bench.model.events


@cocotb.test()
async def products_back_to_back(dut: Any) -> None:
    await _products(dut, 0.0)


@cocotb.test()
async def products_with_pauses(dut: Any) -> None:
    await _products(dut, 0.4)


@cocotb.test()
async def deltas_beyond_a_byte_are_exact(dut: Any) -> None:
    """Plain product of x = product of the changes on the way to x, whatever lay between."""
    bench = Bench(dut, 0.0)
    await bench.power_up()
    for _ in range(4):
        await bench.product(Mode.COMMIT, 0, GROUPS, 0, 0, 0)
        await bench.finish()
        for group in range(GROUPS):
            await bench.write_columns(group)
    await bench.product(Mode.COMMIT, 0, GROUPS, 0, 0, 0)
    await bench.finish()
    plain = Model()
    plain.weights, plain.descriptors = bench.model.weights, bench.model.descriptors
    plain.x = bench.model.x
    plain.product(Mode.PLAIN, 0, GROUPS, 0, 0, 0)
    assert plain.slots == bench.model.slots
    await bench.check_slots()
