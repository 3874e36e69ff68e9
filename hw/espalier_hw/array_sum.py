"""The sum of a drained chunk over the arrays."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import ACCUMULATOR_BITS, Config

from .interfaces import drained_bits

TREE_STAGES = 3
"""Register stages: one two-operand add each for up to 8 arrays, two each for up to 64."""


class ArraySum(wiring.Component):
    """sums[v] = sum over arrays a of drained[a][v], `TREE_STAGES` cycles later, a chunk a cycle.

    A - 1 adders a row, wide enough that the sum cannot overflow.
    """

    def __init__(self, config: Config):
        self._config = config
        chunk = data.ArrayLayout(signed(ACCUMULATOR_BITS), config.vector_lanes)
        sums = data.ArrayLayout(signed(drained_bits(config)), config.vector_lanes)
        super().__init__({
            "drained": In(data.ArrayLayout(chunk, config.arrays)),
            "sums": Out(sums),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for v, total in enumerate(self.sums):
            terms = [array[v] for array in self.drained]
            for stage in range(TREE_STAGES):
                terms = self._stage(m, f"sum_{v}_{stage}", terms)
            m.d.comb += total.eq(terms[0])
        return m

    def _stage(self, m: Module, name: str, terms: list[Value]) -> list[Value]:
        levels = (self._config.arrays - 1).bit_length()
        for _ in range(max(1, -(-levels // TREE_STAGES))):
            pairs = zip(terms[::2], terms[1::2], strict=False)
            terms = [a + b for a, b in pairs] + terms[len(terms) & ~1 :]
        held = [
            Signal(term.shape(), name=f"{name}_{i}", reset_less=True)
            for i, term in enumerate(terms)
        ]
        m.d.sync += [register.eq(term) for register, term in zip(held, terms, strict=True)]
        return held
