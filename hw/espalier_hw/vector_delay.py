"""Delays of the vector unit: short or narrow ones in registers, of which the design has plenty,
others in MLABs, where a bit costs half an ALM whatever the delay."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .datapath import data_register

REGISTER_BITS = 256
"""Most registers of a delay without a ring, whose pointers and words cost ALMs."""
LONGEST = 31
"""Cycles that one ring of an MLAB's 32 words delays."""


class DelayLine(wiring.Component):
    """`output` is `input` as it was `cycles` ago; takes a new value every cycle.

    A ring of `cycles` + 1 words: the read pointer runs one word ahead of the write pointer, on the
    oldest word, so that the two never meet. The output comes straight from the memory: register it,
    outside of this module, or synthesis pulls the register in and takes a block RAM.
    A reset changes nothing here: qualify outputs by a delayed valid bit.

    Parameters
    ----------
    width: bits.
    cycles: delay, 1..31.
    """

    def __init__(self, width: int, cycles: int):
        if not 1 <= cycles <= LONGEST:
            raise ValueError(f"cycles must be in 1..{LONGEST}, not {cycles}")
        self.cycles = cycles
        super().__init__({"input": In(width), "output": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ring = ring = Memory(shape=len(self.input), depth=self.cycles + 1, init=[])
        write, read = ring.write_port(), ring.read_port(domain="comb")
        newest, oldest = (data_register(read.addr.shape(), name) for name in ("newest", "oldest"))
        m.d.sync += [
            newest.eq(oldest),
            oldest.eq(Mux(oldest == self.cycles, 0, oldest + 1)),
        ]
        m.d.comb += [
            write.addr.eq(newest),
            read.addr.eq(oldest),
            write.en.eq(1),
            write.data.eq(self.input),
            self.output.eq(read.data),
        ]
        return m


def delayed(m: Module, name: str, value: Value, cycles: int) -> Value:
    """`value` (unsigned) as it was `cycles` ago, from a register: rings with output registers, or
    registers alone."""
    while cycles:
        ring = min(cycles - 1, LONGEST) if len(value) * cycles > REGISTER_BITS else 0
        if ring >= 2:
            m.submodules[f"{name}_{cycles}"] = line = DelayLine(len(value), ring)
            m.d.comb += line.input.eq(value)
            value, cycles = line.output, cycles - ring
        later = Signal(len(value), name=f"{name}_{cycles}", reset_less=True)
        m.d.sync += later.eq(value)
        value, cycles = later, cycles - 1
    return value


class Timeline:
    """What the unit knows of a chunk when it takes it in, at later cycles of that chunk's way.

    `valid(cycle)` is 1 when a chunk was taken `cycle` cycles ago; `at(cycle, field, ...)` are its
    fields then, meaningless without `valid`.
    """

    def __init__(self, m: Module, taken: Value, fields: dict[str, Value], cycles: int):
        self._m, self._fields = m, fields
        self._history = Signal(cycles)
        self._valid = Cat(taken, self._history)
        m.d.sync += self._history.eq(self._valid)

    def valid(self, cycle: int) -> Value:
        return self._valid[cycle]

    def at(self, cycle: int, *names: str) -> tuple[Value, ...]:
        """The fields called `names`, as unsigned values, for the chunk taken `cycle` cycles ago."""
        together = Cat(*(self._fields[name] for name in names))
        late = delayed(self._m, f"{'_'.join(names)}_at_{cycle}", together, cycle)
        result, start = [], 0
        for name in names:
            width = len(self._fields[name])
            result.append(late[start : start + width])
            start += width
        return tuple(result)
