"""Everything behind the results of a VECTOR that become a scalar."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import VALUE_BITS, Config

from .vector_reduce import SUMS_BITS, Reducer
from .vector_scalar import SCALAR_WRITE, ScalarUnit


class Reductions(wiring.Component):
    """Reducer and scalar unit.

    The scalar of a command is computed while the results of the next two are reduced: its own
    cycles in the `ScalarUnit` begin `Reducer`'s latency after the last results.

    Members
    -------
    ends, ends_tail: a chunk is there two cycles before its result, and is its command's last;
        number of its elements that count, less one.
    beyond: for each lane, in the cycle before the result: it does not count.
    valid, values, last, tail, kind, target: results to be reduced, as of `Reducer`.
    taken: a reduction is on its way into a scalar and another one may follow.
    released, written, write: as of `ScalarUnit`.
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
                "released": Out(1),
                "written": Out(1),
                "write": Out(SCALAR_WRITE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reducer = reducer = Reducer(self._config)
        m.submodules.unit = unit = ScalarUnit()
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
            self.released.eq(unit.released),
            self.written.eq(unit.written),
            self.write.eq(unit.write),
        ]
        return m
