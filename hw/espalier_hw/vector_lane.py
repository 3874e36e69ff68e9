"""One lane of the vector unit: the whole arithmetic pipeline of one element, and its timetable."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, SUM_BITS, VALUE_BITS, Config

from .interfaces import drained_bits
from .vector_sum import PARAMETER_LAYOUT, Accumulate, Requantize, Select
from .vector_value import ENTRY_LAYOUT, SEGMENT_BITS, ColumnInput, Combine, Finish, Function

TOTAL_CYCLE = Accumulate.LATENCY
"""Cycles from a chunk's source to its 27-bit total, in which it is written to the sum memory."""
SCALED_CYCLE = TOTAL_CYCLE + Requantize.LATENCY
COMBINED_CYCLE = SCALED_CYCLE + Combine.LATENCY
FUNCTION_CYCLE = COMBINED_CYCLE + Function.LATENCY
RESULT_CYCLE = FUNCTION_CYCLE + Finish.LATENCY
"""Cycles from a chunk's source to its 16-bit result, in which it is written to vector memory."""
COLUMN_CYCLE = RESULT_CYCLE + ColumnInput.LATENCY
"""Cycles from a chunk's source to its column inputs on the port."""


class VectorLane(wiring.Component):
    """source -> total -> scaled -> combined -> function -> result -> column, one element a cycle.

    Never stalls. An input counts for the element whose source came the given number of cycles
    before (`select`, `joins`, `drained`, `source`, `sum_item`: 0).

    Members
    -------
    stored, add: 1. Stored sum, and whether to add it.
    total: 4. The 27-bit sum.
    parameter, scale: 3
    operand, combine: 9. Operand 1.
    segment: 13. Address in the table memory; relu: 13; entry, table: 14.
    other: 17. Operand 0 again; gate, finish: 18. Operand 2.
    take_item, item: 21. Replaces the result in cycle 22, which must not be an element's.
    beyond: 21. Makes the result 0.
    result: 22; column: 24.
    """

    def __init__(self, config: Config):
        self._drained_bits = drained_bits(config)
        super().__init__(
            {
                "select": In(Select),
                "joins": In(1),
                "drained": In(signed(self._drained_bits)),
                "source": In(signed(VALUE_BITS)),
                "stored": In(signed(SUM_BITS)),
                "add": In(1),
                "sum_item": In(signed(SUM_BITS)),
                "total": Out(signed(SUM_BITS)),
                "parameter": In(PARAMETER_LAYOUT),
                "scale": In(2),
                "operand": In(signed(VALUE_BITS)),
                "combine": In(2),
                "segment": Out(SEGMENT_BITS),
                "entry": In(ENTRY_LAYOUT),
                "relu": In(1),
                "table": In(1),
                "other": In(signed(VALUE_BITS)),
                "gate": In(signed(VALUE_BITS)),
                "finish": In(2),
                "item": In(VALUE_BITS),
                "take_item": In(1),
                "beyond": In(1),
                "result": Out(signed(VALUE_BITS)),
                "column": Out(signed(COLUMN_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accumulate_stage = accumulate = Accumulate(self._drained_bits)
        m.submodules.requantize_stage = requantize = Requantize()
        m.submodules.combine_stage = combine = Combine()
        m.submodules.function_stage = function = Function()
        m.submodules.finish_stage = finish = Finish()
        m.submodules.column_stage = column_input = ColumnInput()
        m.d.comb += [
            accumulate.select.eq(self.select),
            accumulate.drained.eq(self.drained),
            accumulate.operand.eq(self.source),
            accumulate.stored.eq(self.stored),
            accumulate.add.eq(self.add),
            accumulate.item.eq(self.sum_item),
            accumulate.joins.eq(self.joins),
            self.total.eq(accumulate.total),
            requantize.total.eq(accumulate.total),
            requantize.parameter.eq(self.parameter),
            requantize.scale.eq(self.scale),
            combine.value.eq(requantize.value),
            combine.operand.eq(self.operand),
            combine.combine.eq(self.combine),
            function.value.eq(combine.result),
            function.relu.eq(self.relu),
            function.table.eq(self.table),
            self.segment.eq(function.segment),
            function.entry.eq(self.entry),
            finish.value.eq(function.result),
            finish.other.eq(self.other),
            finish.gate.eq(self.gate),
            finish.finish.eq(self.finish),
            finish.item.eq(self.item),
            finish.take_item.eq(self.take_item),
            finish.beyond.eq(self.beyond),
            self.result.eq(finish.result),
            column_input.value.eq(finish.result),
            self.column.eq(column_input.column),
        ]
        return m
