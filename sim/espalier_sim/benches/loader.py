"""Loader bench: random LOADs from a stalling memory, whose writes are compared in order, and
EXPANDs, of which all that was written is compared."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles

from espalier.spec import expansion
from espalier.spec.config import BEAT_BYTES, ITEM_BYTES, TINY
from espalier.spec.memory import ENTRY, QUAD_BITS, Memory, beats, depth, items_per_address
from espalier.spec.registers import Fault
from espalier_hw.interfaces import EXPAND_FIELDS, LOAD_COMMAND, WEIGHTS_COMMAND, item_layout
from espalier_sim.reference.memories import Memories, expand_rows

from .axi_memory import AxiMemory
from .expands import draw_expand
from .host import start_clock
from .streams import Sink, Source, Strobes, elements, pack, unpack, until

CONFIG = TINY
BASE = 0x1000_0000
WINDOW_BYTES = 1 << 16
PER_ARRAY = (Memory.WEIGHTS, Memory.DESCRIPTORS)


class Bench:
    """Driver of LOADs and monitors of the three kinds of writes."""

    def __init__(self, dut: Any, stall: float):
        self.dut, self.random = dut, Random(int(os.environ["COCOTB_RANDOM_SEED"]))
        self.memory = AxiMemory(
            dut, "bus__", base=BASE, size=WINDOW_BYTES, random=self.random, stall=stall
        )
        self.memory.data[:] = self.random.randbytes(WINDOW_BYTES)
        self.commands = Source(dut, "commands", self.random, stall)
        self.weight_commands = Source(dut, "weight_commands", self.random, stall)
        self.items = Sink(dut, "items", self.random, stall)
        self.program = Strobes(dut, "program__valid", "program__address", "program__data")
        names = ("array", "address", "first", "count", "quads")
        self.weights = Strobes(dut, "weights__valid", *(f"weights__{name}" for name in names))
        self.completed = Strobes(dut, "completed")
        self.weights_completed = Strobes(dut, "weights_completed")

    async def start(self) -> None:
        self.dut.window_base.value = BASE
        self.dut.window_size.value = WINDOW_BYTES
        self.dut.stop.value = 0
        await start_clock(self.dut)

    async def load(self, memory: Memory, address: int, count: int, ddr: int) -> None:
        values = {"address": address, "count": count, "ddr": ddr}
        if memory is Memory.WEIGHTS:
            await self.weight_commands.send(pack(WEIGHTS_COMMAND, values))
        else:
            await self.commands.send(pack(LOAD_COMMAND, {"memory": memory, **values}))

    async def expand(self, fields: dict[str, int], tokens: int, ddr: int) -> None:
        values = {name: fields[name] for name in ("address", *EXPAND_FIELDS)}
        values |= {"kind": fields["kind"], "count": tokens, "ddr": ddr, "expand": 1}
        await self.weight_commands.send(pack(WEIGHTS_COMMAND, values))

    @property
    def finished(self) -> int:
        """LOADs and EXPANDs that are complete."""
        return len(self.completed.seen) + len(self.weights_completed.seen)

    def draw(self, memory: Memory) -> tuple[int, int, int]:
        """(address, count, DDR offset) of a LOAD that fits."""
        per_address = 1
        if memory not in (Memory.PROGRAM, *PER_ARRAY):
            per_address = items_per_address(CONFIG, memory)
        count = self.random.randint(1, min(20, depth(CONFIG, memory)) * per_address)
        last = depth(CONFIG, memory) - -(-count // per_address)
        size = beats(CONFIG, memory, count) * BEAT_BYTES
        ddr = self.random.randrange(0, WINDOW_BYTES - size, BEAT_BYTES)
        return self.random.randint(0, last), count, ddr

    def seen(self) -> dict[str, list[tuple[int, ...]]]:
        """Everything written so far, by kind, in the form of `expected`."""
        items = []
        for payload in self.items.received:
            item = unpack(item_layout(CONFIG), payload)
            array = (
                item["array"] if item["memory"] in (Memory.ACTIVATIONS, Memory.DESCRIPTORS) else 0
            )
            items.append((item["memory"], item["address"], item["part"], array, item["data"]))
        return {"program": list(self.program.seen), "weights": self._quads(), "items": items}

    def _quads(self) -> list[tuple[int, ...]]:
        result = []
        per_word = CONFIG.lanes // 4
        for array, address, first, count, quads in self.weights.seen:
            parts = elements(quads, CONFIG.quads_per_beat, QUAD_BITS, is_signed=False)
            for i in range(count):
                place = first + i
                result.append((array, address + place // per_word, place % per_word, parts[i]))
        return result


def expected(
    memory: Memory, address: int, count: int, raw: bytes
) -> tuple[str, list[tuple[int, ...]]]:
    """The writes of one LOAD of the bytes `raw`, from the text of `spec.memory` alone."""
    step = BEAT_BYTES if memory in (Memory.PROGRAM, Memory.WEIGHTS) else ITEM_BYTES
    words = [int.from_bytes(raw[i : i + step], "little") for i in range(0, len(raw), step)]
    if memory is Memory.PROGRAM:
        return "program", [(address + i, word) for i, word in enumerate(words)]
    if memory is Memory.WEIGHTS:
        return "weights", _expected_quads(address, count, words)
    if memory is Memory.DESCRIPTORS:
        stride = count + count % 2
        groups = [(array, i) for array in range(CONFIG.arrays) for i in range(count)]
        return "items", [
            (memory, address + i, 0, array, words[array * stride + i]) for array, i in groups
        ]
    per_address = items_per_address(CONFIG, memory)
    result = []
    for i, word in enumerate(words[:count]):
        where, rest = address + i // per_address, i % per_address
        part, array = (0, rest) if memory is Memory.ACTIVATIONS else (rest, 0)
        result.append((memory, where, part, array, word))
    return "items", result


def _expected_quads(address: int, count: int, words: list[int]) -> list[tuple[int, ...]]:
    per_word, per_beat = CONFIG.lanes // 4, CONFIG.quads_per_beat
    stride = len(words) // CONFIG.arrays
    result = []
    for array in range(CONFIG.arrays):
        for quad in range(count * per_word):
            beat = words[array * stride + quad // per_beat]
            value = (beat >> (QUAD_BITS * (quad % per_beat))) & ((1 << QUAD_BITS) - 1)
            result.append((array, address + quad // per_word, quad % per_word, value))
    return result


async def _run_loads(dut: Any, stall: float, count: int) -> None:
    bench = Bench(dut, stall)
    await bench.start()
    wanted: dict[str, list[tuple[int, ...]]] = {"program": [], "weights": [], "items": []}
    for i in range(count):
        memory = Memory(i % len(Memory)) if i < len(Memory) else bench.random.choice(list(Memory))
        address, size, ddr = bench.draw(memory)
        raw = bytes(bench.memory.data[ddr : ddr + beats(CONFIG, memory, size) * BEAT_BYTES])
        kind, writes = expected(memory, address, size, raw)
        wanted[kind] += writes
        await bench.load(memory, address, size, ddr)
    await until(dut, lambda: bench.finished == count)
    await ClockCycles(dut.clk, 20)
    assert bench.finished == count
    assert bench.seen() == wanted
    assert int(dut.idle.value) == 1 and int(dut.fault__valid.value) == 0


@cocotb.test()
async def loads_without_stalls(dut: Any) -> None:
    await _run_loads(dut, 0.0, 24)


@cocotb.test()
async def loads_with_stalls(dut: Any) -> None:
    await _run_loads(dut, 0.4, 24)


@cocotb.test()
async def burst_outside_the_window_is_not_issued(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.start()
    end = WINDOW_BYTES // 2 + 0x800
    dut.window_size.value = end
    await bench.load(Memory.VECTOR, 0, 8, end - BEAT_BYTES)
    await until(dut, lambda: int(dut.fault__valid.value))
    assert int(dut.fault__cause.value) == Fault.OUTSIDE_WINDOW
    assert int(dut.fault__address.value) == end - BEAT_BYTES
    assert not bench.finished


@cocotb.test()
async def bus_error_is_reported(dut: Any) -> None:
    bench = Bench(dut, 0.2)
    await bench.start()
    bench.memory.fail_at = 0x840
    await bench.load(Memory.PROGRAM, 0, 20, 0x800)
    await until(dut, lambda: int(dut.fault__valid.value))
    assert int(dut.fault__cause.value) == Fault.BUS_ERROR
    assert not bench.finished


UNWRITTEN = 99
ENTRY_BITS = sum(f.width for f in ENTRY.fields)


def _blank() -> Memories:
    memories = Memories(CONFIG)
    memories.digits[:] = memories.entry_slots[:] = UNWRITTEN
    return memories


def _written(quads: list[tuple[int, ...]]) -> Memories:
    """The weight memories after these writes."""
    memories = _blank()
    for array, word, quad, value in quads:
        for i in range(4):
            entry = ENTRY.unpack((value >> (ENTRY.width * i)) & ((1 << ENTRY_BITS) - 1))
            where = array, word, 4 * quad + i
            memories.digits[where], memories.entry_slots[where] = entry["digit"], entry["slot"]
    return memories


async def _run_expands(dut: Any, stall: float, count: int) -> None:
    """EXPANDs with LOADs of items beside them."""
    bench = Bench(dut, stall)
    await bench.start()
    wanted, sent = _blank(), 0
    for _ in range(count):
        fields = draw_expand(CONFIG, bench.random, CONFIG.weight_depth)
        tokens = bench.random.randint(1, fields["most"])
        size = expansion.extent(fields, CONFIG, tokens)
        ddr = bench.random.randrange(0, WINDOW_BYTES - size, BEAT_BYTES)
        wanted.expand(fields, expand_rows(bench.memory.data, ddr, tokens, fields, CONFIG))
        await bench.expand(fields, tokens, ddr)
        sent += 1
        if bench.random.random() < 0.5:
            await bench.load(Memory.VECTOR, 0, bench.random.randint(1, 8), ddr)
            sent += 1
    await until(dut, lambda: bench.finished == sent)
    await ClockCycles(dut.clk, 20)
    assert bench.finished == sent and int(dut.fault__valid.value) == 0
    written = _written(bench.seen()["weights"])
    assert (written.digits == wanted.digits).all()
    assert (written.entry_slots == wanted.entry_slots).all()


@cocotb.test()
async def expands_without_stalls(dut: Any) -> None:
    await _run_expands(dut, 0.0, 12)


@cocotb.test()
async def expands_with_stalls(dut: Any) -> None:
    await _run_expands(dut, 0.4, 12)
