"""The vector unit: everything between drained slots and column inputs."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec import isa
from espalier.spec.config import ITEM_BYTES, SUM_BITS, VALUE_BITS, Config
from espalier.spec.memory import Memory

from .interfaces import VECTOR_COMMAND, ColumnWrite, Drain, items, stored_chunk
from .queues import Queue
from .vector_delay import DelayLine, Timeline
from .vector_issue import VectorIssue, reduces
from .vector_items import take_items, write_port
from .vector_lane import (
    COLUMN_CYCLE,
    COMBINED_CYCLE,
    FUNCTION_CYCLE,
    RESULT_CYCLE,
    SCALED_CYCLE,
    TOTAL_CYCLE,
    VectorLane,
)
from .vector_memory import ChunkMemory, TableMemory
from .vector_reductions import Reductions
from .vector_scalar import SCALAR_WRITE
from .vector_store import StoreBuffer
from .vector_sum import PARAMETER_LAYOUT, Select
from .vector_value import ENTRY_LAYOUT

COMPLETION_CYCLES = COLUMN_CYCLE + 1
"""Cycles from a chunk's answer of the engine to `completed`, when it is a command's last."""
LANES_PER_VECTOR_ITEM = 8 * ITEM_BYTES // VALUE_BITS
LANES_PER_SUM_ITEM = 2


def command_cycles(count: int, planes: int, drain_latency: int) -> int:
    """Cycles from a command's transfer to `completed`, alone, with room and without a reduction
    (planes: 1 or 2)."""
    return 1 + count * planes + drain_latency + COMPLETION_CYCLES


class VectorUnit(wiring.Component):
    """Executes VECTORs (the meaning is `spec.isa.VECTOR` with `spec.numerics`) on V lanes.

    Throughput: one chunk a cycle, two cycles a chunk with two digit planes. The next command's
    first chunk is taken in the cycle after the last one's, whatever the pipeline still holds: a
    VECTOR that reads what another one writes must wait for its `completed`, and within one command
    no chunk may read what an earlier one wrote to vector memory.
    Latency: a command that comes in cycle 0, with nothing before it, has its first chunk taken in
    cycle 2 (3 with two planes) and completes in cycle 1 + count·planes + drain_latency + 25
    (`command_cycles`). Every chunk's stages lie at fixed distances from its taking: drained sums
    `drain_latency` cycles after, the sum memory's write 4 more, vector memory and store 22 more,
    columns 24, `completed` 25. `QUEUE_DEPTH` commands wait inside.
    A command that reduces its results takes a chunk every V/8 cycles and completes like all others;
    its scalar comes later, computed while the results of the next two are reduced. A command that
    reads a scalar is not taken before all earlier reductions into its half of the scalars are
    finished: nobody waits for them but it, and what is behind it.
    Back-pressure: a chunk that goes to DDR is taken only when the store buffer has a place for it
    (33 in all); behind that nothing stalls.
    Loader items: one a cycle, none beside a scalar's write; an item for the vector memory waits for
    a cycle without a chunk in the stage that writes there, one for the sum memory for a cycle
    without a chunk where sums come from the engine.

    Parameters
    ----------
    config: sizes.
    drain_latency: cycles from a drain request to its sums, at least 3 (operand 0 is read
        meanwhile).

    Members
    -------
    commands, completed: VECTORs, and a pulse for each, in order, when all it wrote can be read
        (DDR: lies in `store`'s FIFO).
    chunk_taken: a chunk is taken in.
    reducing: a scalar is to come whose VECTOR has been taken in.
    drain, columns: to the engine.
    items: vector, sums, parameters and tables from DDR.
    store: chunks to DDR.
    """

    def __init__(self, config: Config, drain_latency: int):
        if drain_latency < 3:
            raise ValueError(f"drain_latency must be at least 3, not {drain_latency}")
        self._config, self._drain_latency = config, drain_latency
        super().__init__(
            {
                "commands": In(stream.Signature(VECTOR_COMMAND)),
                "completed": Out(1),
                "chunk_taken": Out(1),
                "reducing": Out(1),
                "drain": Out(Drain(config)),
                "columns": Out(ColumnWrite(config)),
                "items": In(items(config)),
                "store": Out(stream.Signature(stored_chunk(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self._config
        m.submodules.issue = issue = VectorIssue(c)
        m.submodules.store = store = StoreBuffer(c)
        lanes = [VectorLane(c) for _ in range(c.vector_lanes)]
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = lane

        m.submodules.queue = queue = Queue(VECTOR_COMMAND, isa.QUEUE_DEPTH)
        wiring.connect(m, wiring.flipped(self.commands), queue.input)
        wiring.connect(m, queue.output, issue.commands)
        wiring.connect(m, wiring.flipped(self.store), store.output)
        m.d.comb += [
            issue.room.eq(store.room),
            self.chunk_taken.eq(issue.taken),
            self.drain.valid.eq(issue.drain_valid),
            self.drain.chunk.eq(issue.drain_chunk),
            self.drain.follows.eq(issue.drain_follows),
            self.drain.continues.eq(issue.drain_continues),
        ]
        fields = {name: issue.command[name] for name, _ in VECTOR_COMMAND}
        fields.update(
            select=issue.select.as_value(),
            joins=issue.joins,
            last=issue.last,
            column_array=issue.column_array,
            reduces=reduces(issue.command),
            tail=issue.command.tail[: (c.vector_lanes - 1).bit_length()],
        )
        timeline = Timeline(m, issue.taken, fields, self._drain_latency + COMPLETION_CYCLES)

        scalar = self._connect_reductions(m, lanes, timeline, issue)
        item = take_items(m, self.items, timeline, self._drain_latency, scalar, c.first_scalar)
        self._connect_sums(m, lanes, timeline, item)
        self._connect_vector_memory(m, lanes, timeline, item)
        self._connect_rows(m, lanes, timeline, item)
        self._connect_tables(m, lanes, timeline, item)
        self._connect_outputs(m, lanes, timeline, store)
        last = timeline.at(self._drain_latency + COMPLETION_CYCLES, "last")[0]
        m.d.comb += [
            self.completed.eq(timeline.valid(self._drain_latency + COMPLETION_CYCLES) & last),
            self.reducing.eq(issue.reducing),
        ]
        m.d.comb += store.take.eq(issue.taken & (issue.command.store != isa.Store.NONE))
        return m

    def _connect_sums(
        self, m: Module, lanes: list[VectorLane], timeline: Timeline, item: data.View
    ) -> None:
        """Source, stored sum, and the total's way back."""
        drained = self._drain_latency
        m.submodules.sum_memory = sums = ChunkMemory(
            depth=self._config.sum_depth,
            parts=len(lanes) // LANES_PER_SUM_ITEM,
            part_bits=LANES_PER_SUM_ITEM * SUM_BITS,
        )
        select, joins, address = timeline.at(drained, "select", "joins", "sum_address")
        (use,) = timeline.at(drained + 1, "sums")
        stored = data.ArrayLayout(signed(SUM_BITS), len(lanes))(sums.read_data0.as_value())
        totals = Signal(data.ArrayLayout(signed(SUM_BITS), len(lanes)))
        loads, adds = Signal(), Signal()
        m.d.comb += [
            sums.read_address0.eq(address),
            sums.write_data.eq(totals),
            loads.eq(item.valid & (item.payload.memory == Memory.SUMS)),
            # not to an item, which may be there instead of a chunk
            adds.eq(
                timeline.valid(drained + 1) & ((use == isa.Sums.ADD) | (use == isa.Sums.ACCUMULATE))
            ),
        ]
        for i, lane in enumerate(lanes):
            position = i % LANES_PER_SUM_ITEM * 32
            m.d.comb += [
                lane.select.eq(Mux(loads, Select.ITEM, Select(select))),
                lane.joins.eq(joins & ~loads),
                lane.drained.eq(self.drain.sums[i]),
                lane.stored.eq(stored[i]),
                lane.add.eq(adds),
                lane.sum_item.eq(item.payload.data[position : position + SUM_BITS]),
                totals[i].eq(lane.total),
            ]

        cycle = drained + TOTAL_CYCLE - 1
        use, address = timeline.at(cycle, "sums", "sum_address")
        writes = (use == isa.Sums.ACCUMULATE) | (use == isa.Sums.WRITE)
        writes &= timeline.valid(cycle)
        write_port(m, sums, Memory.SUMS, writes, address, item, TOTAL_CYCLE - 1)

    def _connect_vector_memory(
        self, m: Module, lanes: list[VectorLane], timeline: Timeline, item: data.View
    ) -> None:
        """Operands out, the result in. Operand 0 is read as a source and kept to interpolate."""
        drained, count = self._drain_latency, len(lanes)
        m.submodules.vector_memory = vectors = ChunkMemory(
            depth=self._config.vector_depth,
            parts=count // LANES_PER_VECTOR_ITEM,
            part_bits=LANES_PER_VECTOR_ITEM * VALUE_BITS,
            reads=3,
        )
        chunk = data.ArrayLayout(signed(VALUE_BITS), count)
        source = Signal(chunk, reset_less=True)
        m.submodules.kept_operand = other = DelayLine(count * VALUE_BITS, FUNCTION_CYCLE - 1)
        m.d.sync += source.eq(vectors.read_data0)
        m.d.comb += [
            other.input.eq(source),
            vectors.read_address0.eq(timeline.at(drained - 2, "operand0")[0]),
            vectors.read_address1.eq(timeline.at(drained + SCALED_CYCLE - 2, "operand1")[0]),
            vectors.read_address2.eq(timeline.at(drained + FUNCTION_CYCLE - 1, "operand2")[0]),
        ]
        operand1, operand2 = (
            chunk(vectors.read_data1.as_value()),
            chunk(vectors.read_data2.as_value()),
        )
        (combine,) = timeline.at(drained + SCALED_CYCLE - 1, "combine")
        (finish,) = timeline.at(drained + FUNCTION_CYCLE, "finish")
        results = Signal(chunk)
        for i, lane in enumerate(lanes):
            position = i % LANES_PER_VECTOR_ITEM * VALUE_BITS
            m.d.comb += [
                lane.source.eq(source[i]),
                lane.operand.eq(operand1[i]),
                lane.combine.eq(combine),
                lane.other.eq(chunk(other.output)[i]),
                lane.gate.eq(operand2[i]),
                lane.finish.eq(finish),
                lane.item.eq(item.payload.data[position : position + VALUE_BITS]),
                lane.take_item.eq(item.valid & (item.payload.memory == Memory.VECTOR)),
                results[i].eq(lane.result),
            ]
        m.d.comb += vectors.write_data.eq(results)
        cycle = drained + RESULT_CYCLE - 1
        writes, address = timeline.at(cycle, "write_vector", "vector_address")
        write_port(m, vectors, Memory.VECTOR, timeline.valid(cycle) & writes, address, item)

    def _connect_reductions(
        self, m: Module, lanes: list[VectorLane], timeline: Timeline, issue: VectorIssue
    ) -> data.View:
        """The tail of a bounded VECTOR and the reduction of its results into a scalar, which is
        returned; a Config without reductions has neither."""
        result = self._drain_latency + RESULT_CYCLE
        scalar = Signal(data.StructLayout({"valid": 1, "write": SCALAR_WRITE}))
        if not self._config.reductions:
            return scalar
        m.submodules.reductions = reductions = Reductions(self._config)
        ends, ends_tail = timeline.at(result - 2, "last", "tail")
        reduced, last, tail, kind, target = timeline.at(
            result, "reduces", "last", "tail", "sums", "sum_address"
        )
        m.d.comb += [
            # only where a chunk is: a loader item may be there instead
            reductions.ends.eq(timeline.valid(result - 2) & ends),
            reductions.ends_tail.eq(ends_tail),
            reductions.valid.eq(timeline.valid(result) & reduced),
            reductions.last.eq(last),
            reductions.tail.eq(tail),
            reductions.kind.eq(kind),
            reductions.target.eq(target),
            issue.reduction_taken.eq(reductions.taken),
            issue.released.eq(reductions.released),
            issue.released_scalar.eq(reductions.write.scalar),
            scalar.valid.eq(reductions.written),
            scalar.write.eq(reductions.write),
        ]
        for i, lane in enumerate(lanes):
            m.d.comb += [
                lane.beyond.eq(reductions.beyond[i]),
                reductions.values[i].eq(lane.result),
            ]
        return scalar

    def _connect_rows(
        self,
        m: Module,
        lanes: list[VectorLane],
        timeline: Timeline,
        item: data.View,
    ) -> None:
        """Row parameters and scalars."""
        drained, kind = self._drain_latency, Memory.PARAMETERS
        m.submodules.parameter_memory = parameters = ChunkMemory(
            depth=self._config.parameter_depth, parts=len(lanes), part_bits=PARAMETER_LAYOUT.size
        )
        (address,) = timeline.at(drained + TOTAL_CYCLE - 2, "parameters")
        (scale,) = timeline.at(drained + TOTAL_CYCLE - 1, "scale")
        loads = item.valid & (item.payload.memory == kind)
        part = (1 << item.payload.part)[: len(lanes)] | item.all_parts.replicate(len(lanes))
        m.d.comb += [
            parameters.read_address0.eq(address),
            parameters.write_enable.eq(Mux(loads, part, 0)),
            parameters.write_address.eq(item.payload.address),
        ]
        for i, lane in enumerate(lanes):
            m.d.comb += [
                parameters.write_data[i].eq(item.payload.data),
                lane.parameter.eq(PARAMETER_LAYOUT(parameters.read_data0[i])),
                lane.scale.eq(scale),
            ]

    def _connect_tables(
        self, m: Module, lanes: list[VectorLane], timeline: Timeline, item: data.View
    ) -> None:
        """Every lane looks up its own segment."""
        combined = self._drain_latency + COMBINED_CYCLE
        m.submodules.table_memory = tables = TableMemory(self._config)
        (function,) = timeline.at(combined, "function")
        (function_later,) = timeline.at(combined + 1, "function")
        m.d.comb += [
            tables.write_enable.eq(item.valid & (item.payload.memory == Memory.TABLES)),
            tables.write_address.eq(item.payload.address),
            tables.write_data.eq(ENTRY_LAYOUT(item.payload.data[: ENTRY_LAYOUT.size])),
            tables.table.eq(function - isa.Function.TABLE0),
        ]
        for i, lane in enumerate(lanes):
            m.d.comb += [
                tables.segments[i].eq(lane.segment),
                lane.entry.eq(tables.entries[i]),
                lane.relu.eq(function == isa.Function.RELU),
                lane.table.eq(function_later >= isa.Function.TABLE0),
            ]

    def _connect_outputs(
        self, m: Module, lanes: list[VectorLane], timeline: Timeline, store: StoreBuffer
    ) -> None:
        """Columns and DDR."""
        drained = self._drain_latency
        (early,) = timeline.at(drained + TOTAL_CYCLE, "store")
        (late,) = timeline.at(drained + RESULT_CYCLE, "store")
        write_columns, array, address, kind = timeline.at(
            drained + COLUMN_CYCLE, "write_columns", "column_array", "column_address", "store"
        )
        columns_pass = timeline.valid(drained + COLUMN_CYCLE)
        m.d.comb += [
            store.sums_valid.eq(timeline.valid(drained + TOTAL_CYCLE) & (early != isa.Store.NONE)),
            store.values_valid.eq(
                timeline.valid(drained + RESULT_CYCLE) & (late != isa.Store.NONE)
            ),
            store.kind.eq(late),
            store.columns_valid.eq(columns_pass & (kind == isa.Store.COLUMNS)),
            self.columns.valid.eq(columns_pass & write_columns),
            self.columns.array.eq(array),
            self.columns.address.eq(address),
        ]
        for i, lane in enumerate(lanes):
            m.d.comb += [
                store.sums[i].eq(lane.total),
                store.values[i].eq(lane.result),
                store.columns[i].eq(lane.column),
                self.columns.data[i].eq(lane.column),
            ]
