"""The column engine: A arrays that multiply their columns with sparse weights, drained as sums over the arrays."""

from __future__ import annotations

from math import gcd

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import ACCUMULATOR_BITS, SLOTS, Config
from espalier.spec.memory import Memory

from . import feeder
from .array import OPERATION_LATENCY, ColumnArray, operation_layout
from .buffer import Buffer
from .group_memories import group_write
from .interfaces import (
    PRODUCT_COMMAND,
    ColumnWrite,
    Drain,
    EngineEvents,
    WeightWrite,
    drained_bits,
    items,
)
from .weights import WeightCrossbar

TREE_STAGES = 3
"""Register stages of the sum over arrays: one two-operand add each for up to 8 arrays."""
DRAIN_LATENCY = OPERATION_LATENCY + TREE_STAGES
"""Cycles from a drain request to its sums, in every Config."""
FIRST_WORD_LATENCY = feeder.FIRST_WORD_LATENCY + 1
"""Cycles from a command's transfer to its first weight address: one more than the feeder's."""
COMPLETION_LATENCY = 2
"""Cycles from the slowest array's last weight address to `completed`."""
EVENT_LATENCY = 1
"""Cycles from a weight address to its `words` event."""
OUTSTANDING = 7
"""Products accepted and not completed, at most."""


class ArraySum(wiring.Component):
    """sums[v] = sum over arrays of drained[a][v], `TREE_STAGES` cycles later."""

    def __init__(self, config: Config):
        self._config = config
        lanes = config.vector_lanes
        super().__init__({
            "drained": In(data.ArrayLayout(data.ArrayLayout(signed(ACCUMULATOR_BITS), lanes), config.arrays)),
            "sums": Out(data.ArrayLayout(signed(drained_bits(config)), lanes)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arrays = self._config.arrays
        levels = max(arrays - 1, 0).bit_length()
        per_stage = max(1, -(-levels // TREE_STAGES))
        for v in range(self._config.vector_lanes):
            terms = [self.drained[a][v] for a in range(arrays)]
            for stage in range(TREE_STAGES):
                for _ in range(per_stage):
                    terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + terms[len(terms) & ~1:]
                held = [
                    Signal(term.shape(), name=f"sum_{v}_{stage}_{i}", reset_less=True) for i, term in enumerate(terms)
                ]
                m.d.sync += [h.eq(term) for h, term in zip(held, terms, strict=True)]
                terms = held
            m.d.comb += self.sums[v].eq(terms[0])
        return m


class GroupRouter(wiring.Component):
    """Column groups and descriptors to the arrays they belong to, one cycle later.

    A chunk of V/G groups from the vector unit goes to neighbouring arrays and is never refused;
    items wait meanwhile.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "items": In(items(config)),
            "columns": In(ColumnWrite(config)),
            "writes": Out(data.ArrayLayout(group_write(config), config.arrays)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c, item, columns = self._config, self.items.payload, self.columns
        taken = self.items.valid & self.items.ready
        m.d.comb += self.items.ready.eq(~columns.valid)
        # a chunk starts at array 0 or a whole number of chunks further: with A a multiple of V/G each array knows its group
        starts = range(0, c.arrays, gcd(c.arrays, c.chunk_groups))
        groups = [columns.data.as_value().word_select(i, 8 * c.group) for i in range(c.chunk_groups)]
        buses = [Signal(64, name=f"group_{i}") for i in range(c.chunk_groups)]
        m.d.comb += [bus.eq(Mux(columns.valid, group, item.data)) for bus, group in zip(buses, groups, strict=True)]
        for a in range(c.arrays):
            write = Signal(group_write(c), name=f"write_{a}")
            mine = taken & (item.array == a)
            m.d.comb += [
                write.activations.eq(mine & (item.memory == Memory.ACTIVATIONS)),
                write.descriptors.eq(mine & (item.memory == Memory.DESCRIPTORS)),
                write.address.eq(item.address),
            ]
            candidates = [(start, (a - start) % c.arrays) for start in starts]
            candidates = [(start, i) for start, i in candidates if i < c.chunk_groups]
            m.d.comb += write.data.eq(buses[candidates[0][1]])
            for start, i in candidates:
                with m.If(columns.valid & (columns.array == start)):
                    m.d.comb += [
                        write.activations.eq(1),
                        write.address.eq(columns.address + (start + i >= c.arrays)),
                    ]
                    if i != candidates[0][1]:
                        m.d.comb += write.data.eq(buses[i])
            m.d.sync += self.writes[a].eq(write)
        return m


class Engine(wiring.Component):
    """PRODUCTs in order, columns in A arrays side by side; see `spec.isa.Mode` for their meaning.

    Every array has two products waiting and one or more on their way through its feeder, so that
    one that is done early starts the next product at once. Cycles of a product in one array: see
    `Feeder`. `completed` follows the slowest array's last word by `COMPLETION_LATENCY` cycles.

    A drain request or a clear takes its cycle from all arrays. Products, columns and weights must
    be written before the cycle in which the command is taken; a drain may follow `completed` at
    once.

    Members
    -------
    commands, completed: products in, one pulse each in order. weights, items, columns: writes;
    items are activations and descriptors and wait while columns are written. drain: answers
    `DRAIN_LATENCY` cycles later. clear: starts to clear all slots, while `clearing` is 1.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "commands": In(stream.Signature(PRODUCT_COMMAND)),
            "completed": Out(1),
            "weights": In(WeightWrite(config)),
            "items": In(items(config)),
            "columns": In(ColumnWrite(config)),
            "drain": In(Drain(config)),
            "clear": In(1),
            "clearing": Out(1),
            "events": Out(EngineEvents(config)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crossbar = crossbar = WeightCrossbar(self._config)
        m.submodules.router = router = GroupRouter(self._config)
        m.submodules.array_sum = array_sum = ArraySum(self._config)
        arrays = [ColumnArray(self._config) for _ in range(self._config.arrays)]
        connect(m, flipped(self.weights), crossbar.write)
        connect(m, flipped(self.items), router.items)
        connect(m, flipped(self.columns), router.columns)
        operation = self._operation(m)
        for a, array in enumerate(arrays):
            m.submodules[f"array_{a}"] = array
            m.d.comb += [
                array.quads.eq(crossbar.quads),
                array.write.eq(router.writes[a]),
                array.operation.eq(operation),
                array_sum.drained[a].eq(array.drained),
            ]
            for quad, written in zip(array.quads, crossbar.quads, strict=True):
                m.d.comb += quad.enable.eq(written.enable & (crossbar.array == a))
        m.d.comb += self.drain.sums.eq(array_sum.sums)
        self._products(m, arrays)
        m.d.sync += [
            self.events.words.eq(sum(array.word for array in arrays)),
            self.events.visits.eq(sum(array.visits for array in arrays)),
            self.events.skipped.eq(sum(array.skipped for array in arrays)),
        ]
        return m

    def _operation(self, m: Module) -> Value:
        """The slot operation of this cycle: a drain, or a step of the clear."""
        chunks = self._config.slot_chunks
        operation = Signal(operation_layout(self._config))
        sweep, which = Signal(range(SLOTS)), Signal(range(max(chunks, 2)))
        if chunks & (chunks - 1):
            places = [divmod(chunk, chunks) for chunk in range(self._config.tile_chunks)]
            slot, remainder = (Array(part)[self.drain.chunk] for part in zip(*places, strict=True))
        else:
            bits = chunks.bit_length() - 1
            slot, remainder = self.drain.chunk[bits:], self.drain.chunk[:bits]
        m.d.comb += [
            which.eq(remainder),
            operation.valid.eq(self.drain.valid | self.clearing),
            operation.slot.eq(Mux(self.clearing, sweep, slot)),
            operation.clear.eq(Mux(self.clearing, ~0, 1 << which)),
        ]
        with m.If(self.clearing):
            m.d.sync += [sweep.eq(sweep + 1), self.clearing.eq(sweep != SLOTS - 1)]
        with m.Elif(self.clear):
            m.d.sync += self.clearing.eq(1)
        return operation

    def _products(self, m: Module, arrays: list[ColumnArray]) -> None:
        """Every array takes every command when it is ready; a product is completed when all are done with it."""
        m.submodules.waiting = waiting = Buffer(PRODUCT_COMMAND)
        head, outstanding, everyone = waiting.output, Signal(range(OUTSTANDING + 1)), Signal()
        room = outstanding != OUTSTANDING
        m.d.comb += [
            waiting.input.payload.eq(self.commands.payload),
            waiting.input.valid.eq(self.commands.valid & room),
            self.commands.ready.eq(waiting.input.ready & room),
            self.events.running.eq(outstanding != 0),
        ]
        took, finished = [], []
        for a, array in enumerate(arrays):
            taken, done = Signal(name=f"taken_{a}"), Signal(range(OUTSTANDING + 1), name=f"done_{a}")
            took.append(taken | array.command.ready)
            finished.append(array.done | (done != 0))
            m.d.comb += [
                array.command.valid.eq(head.valid & ~taken),
                *(array.command.payload[name].eq(head.payload[name]) for name, _ in PRODUCT_COMMAND),
            ]
            m.d.sync += [taken.eq(head.valid & took[-1] & ~head.ready), done.eq(done + array.done - everyone)]
        m.d.comb += [head.ready.eq(Cat(took).all()), everyone.eq(Cat(finished).all())]
        m.d.sync += [
            self.completed.eq(everyone),
            outstanding.eq(outstanding + (self.commands.valid & self.commands.ready) - self.completed),
        ]
