"""Everything behind the results of a VECTOR that become a scalar."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import VALUE_BITS, Config
from espalier.spec.isa import SCALARS

from .vector_completion import Completions
from .vector_memory import ScalarMemory
from .vector_reduce import SUMS_BITS, Reducer
from .vector_scalar import ScalarUnit
from .vector_sum import SCALE_LAYOUT


class Reductions(wiring.Component):
    """Reducer, scalar unit, scalars, and the order of completions that depends on them.

    The scalar of a command is computed while the results of the next two are reduced. A VECTOR of
    n chunks completes V/4 + 5 + s cycles later than if it reduced nothing, with s cycles in the
    scalar unit (`ScalarUnit`) and nothing before it there.

    Members
    -------
    ends, ends_tail: a chunk is there two cycles before its result, and is its command's last;
        number of its elements that count, less one.
    beyond: for each lane, in the cycle before the result: it does not count.
    valid, values, last, tail, kind, target: results to be reduced, as of `Reducer`.
    taken: a reduction is on its way into a scalar and another one may follow.
    finished, finished_reduces, completed: a command's completion, as of `Completions`.
    read_address, read_data: a scalar and, a cycle later, its value.
    """

    def __init__(self, config: Config):
        self._config, lanes = config, config.vector_lanes
        tail = (lanes - 1).bit_length()
        super().__init__(
            {
                "ends": In(1),
                "ends_tail": In(tail),
                "beyond": Out(lanes),
                "valid": In(1),
                "values": In(data.ArrayLayout(signed(VALUE_BITS), lanes)),
                "last": In(1),
                "tail": In(tail),
                "kind": In(SUMS_BITS),
                "target": In(10),
                "taken": Out(1),
                "finished": In(1),
                "finished_reduces": In(1),
                "completed": Out(1),
                "read_address": In(range(SCALARS)),
                "read_data": Out(SCALE_LAYOUT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reducer = reducer = Reducer(self._config)
        m.submodules.unit = unit = ScalarUnit()
        m.submodules.memory = memory = ScalarMemory()
        m.submodules.completions = completions = Completions()
        wiring.connect(m, reducer.output, unit.reductions)
        lanes = range(len(self.beyond))
        m.d.sync += [
            self.beyond.eq(Cat(self.ends & (self.ends_tail < lane) for lane in lanes)),
            reducer.beyond.eq(self.beyond),
        ]
        m.d.comb += [
            reducer.valid.eq(self.valid),
            reducer.values.eq(self.values),
            reducer.last.eq(self.last),
            reducer.tail.eq(self.tail),
            reducer.kind.eq(self.kind),
            reducer.target.eq(self.target),
            self.taken.eq(reducer.output.valid & reducer.output.ready),
            memory.write_enable.eq(unit.written),
            memory.write.eq(unit.write),
            memory.read_address.eq(self.read_address),
            self.read_data.eq(memory.read_data),
            completions.finished.eq(self.finished),
            completions.reduces.eq(self.finished_reduces),
            completions.scalar_written.eq(unit.written),
            self.completed.eq(completions.completed),
        ]
        return m
