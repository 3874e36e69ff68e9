"""The column engine: A arrays multiply their columns with sparse weights; drained as their sum."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import SLOTS, Config

from . import feeder
from .array import OPERATION_LATENCY, ColumnArray, operation_layout
from .array_sum import TREE_STAGES, ArraySum
from .buffer import Buffer
from .datapath import KEEP
from .group_router import GroupRouter
from .interfaces import PRODUCT_COMMAND, ColumnWrite, Drain, EngineEvents, WeightWrite, items
from .weights import WeightCrossbar

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


class Engine(wiring.Component):
    """PRODUCTs in order, columns in A arrays side by side; see `spec.isa.Mode` for their meaning.

    Every array takes the next product as soon as it has read its share of the one before, two
    more wait for all of them: an array that is done early goes on at once. A product alone runs
    from its command for FIRST_WORD_LATENCY + (cycles of the slowest array) + COMPLETION_LATENCY - 1
    cycles until `completed`; products that wait follow without a gap. Cycles of an array: see
    `Feeder`. A drain request and each of the 32 steps of a clear take one cycle from all arrays.

    What a product reads must be written one cycle before its command at the latest. Lanes keep the
    order of words and drains: a drain may follow `completed` at once.

    Members
    -------
    commands, completed: products in, one pulse each in order.
    weights, items, columns: writes; items (activations, descriptors) wait for columns.
    drain: answers `DRAIN_LATENCY` cycles after each request.
    clear: begins to clear all slots; `clearing` is 1 from the next cycle until it is done.
    reset: makes the engine forget its products a cycle later; the slots hold anything then, until
        a clear.
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
            "reset": In(1),
            "events": Out(EngineEvents(config)),
        })

    def elaborate(self, platform: object) -> Module:
        m, control = Module(), Module()
        crossbar, router = WeightCrossbar(self._config), GroupRouter(self._config)
        m.submodules.array_sum = array_sum = ArraySum(self._config)
        arrays = [ColumnArray(self._config) for _ in range(self._config.arrays)]
        connect(m, flipped(self.weights), crossbar.write)
        connect(m, flipped(self.items), router.items)
        connect(m, flipped(self.columns), router.columns)
        operation = self._operation(control)
        for a, array in enumerate(arrays):
            self._add(m, f"array_{a}", array)
            m.d.comb += [
                array.quads.eq(crossbar.quads),
                array.write.eq(router.writes[a]),
                array.operation.eq(operation),
                array_sum.drained[a].eq(array.drained),
            ]
            for quad, written in zip(array.quads, crossbar.quads, strict=True):
                m.d.comb += quad.enable.eq(written.enable & (crossbar.array == a))
        m.d.comb += self.drain.sums.eq(array_sum.sums)
        self._products(control, arrays)
        for name, part in {"crossbar": crossbar, "router": router, "control": control}.items():
            self._add(m, name, part)
        m.d.sync += [
            self.events.words.eq(sum(array.word for array in arrays)),
            self.events.visits.eq(sum(array.visits for array in arrays)),
            self.events.skipped.eq(sum(array.skipped for array in arrays)),
        ]
        return m

    def _add(self, m: Module, name: str, part: Elaboratable) -> None:
        """A submodule with a reset register of its own, a cycle behind `reset`."""
        own = Signal(name="own_reset", attrs=KEEP)
        m.d.sync += own.eq(self.reset)
        m.submodules[name] = ResetInserter(own)(part)

    def _operation(self, m: Module) -> Value:
        """The slot operation of this cycle: a drain, or a step of the clear.

        A request that continues in a slot finds its chunk kept by the first one's operation.
        """
        chunks = self._config.slot_chunks
        operation = Signal(operation_layout(self._config))
        sweep, which = Signal(range(SLOTS)), Signal(range(max(chunks, 2)))
        if chunks & (chunks - 1):
            places = [divmod(chunk, chunks) for chunk in range(self._config.tile_chunks)]
            slot, remainder = (Array(part)[self.drain.chunk] for part in zip(*places, strict=True))
        else:
            bits = chunks.bit_length() - 1
            slot, remainder = self.drain.chunk[bits:], self.drain.chunk[:bits]
        kept = self.drain.continues & (which != 0)
        m.d.comb += [
            which.eq(remainder),
            operation.valid.eq((self.drain.valid & ~kept) | self.clearing),
            operation.slot.eq(Mux(self.clearing, sweep, slot)),
            operation.clear.eq(Mux(self.clearing, ~0, ((2 << self.drain.follows) - 1) << which)),
            operation.select.eq(which),
        ]
        with m.If(self.clearing):
            m.d.sync += [sweep.eq(sweep + 1), self.clearing.eq(sweep != SLOTS - 1)]
        with m.Elif(self.clear):
            m.d.sync += self.clearing.eq(1)
        return operation

    def _products(self, m: Module, arrays: list[ColumnArray]) -> None:
        """Every array takes every command when it is ready; completed when all are done with it.

        The next command is there two cycles after the last array has taken one: what arrays take
        in a cycle is looked at in the next, for they are far from each other.
        """
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
            taken = Signal(name=f"taken_{a}")
            done = Signal(range(OUTSTANDING + 1), name=f"done_{a}")
            took.append(taken)
            finished.append(array.done | (done != 0))
            m.d.comb += array.command.valid.eq(head.valid & ~taken)
            for name, _ in PRODUCT_COMMAND:
                m.d.comb += array.command.payload[name].eq(head.payload[name])
            m.d.sync += [
                taken.eq(head.valid & (taken | array.command.ready) & ~head.ready),
                done.eq(done + array.done - everyone),
            ]
        m.d.comb += [head.ready.eq(Cat(took).all()), everyone.eq(Cat(finished).all())]
        accepted = self.commands.valid & self.commands.ready
        m.d.sync += [
            self.completed.eq(everyone),
            outstanding.eq(outstanding + accepted - self.completed),
        ]
