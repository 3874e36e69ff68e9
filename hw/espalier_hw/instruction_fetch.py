"""Program memory and the instruction at hand."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import Config
from espalier.spec.isa import INSTRUCTION_BITS

from .datapath import data_output
from .interfaces import ProgramWrite
from .loop_stack import PC_BITS


class InstructionFetch(Component):
    """Holds one instruction, fetches the next one meanwhile.

    After `advance` the next instruction is there in the next cycle, marked by `decode`, and
    `valid` from the cycle after it on. After `jump` (at any time, stronger than `advance`) the one
    at `target` is there a cycle later than that; `branch` must be 1 in that cycle and may be so
    before, as long as no `advance` without `jump` follows: it alone selects the address, so that a
    late `jump` is not in the memory's path.

    Members
    -------
    word, at, following: the instruction, its address and the next address.
    """

    def __init__(self, config: Config):
        self._depth = config.program_depth
        super().__init__(
            {
                "program": In(ProgramWrite()),
                "branch": In(1),
                "jump": In(1),
                "target": In(PC_BITS),
                "advance": In(1),
                "decode": Out(1),
                "valid": Out(1),
                "word": Out(INSTRUCTION_BITS),
                "at": Out(PC_BITS),
                "following": Out(PC_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=INSTRUCTION_BITS, depth=self._depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.program.address),
            write.data.eq(self.program.data),
            write.en.eq(self.program.valid),
            read.addr.eq(Mux(self.branch, self.target, self.following)),
        ]
        arriving, take = Signal(), Signal()
        word = data_output(m, self.word, "word_held")
        m.d.comb += take.eq(arriving | (self.valid & self.advance))
        m.d.sync += [
            arriving.eq(self.jump),
            self.decode.eq(take & ~self.jump),
            self.valid.eq((self.decode | (self.valid & ~self.advance)) & ~self.jump),
        ]
        with m.If(self.jump):
            m.d.sync += self.following.eq(self.target)
        with m.Elif(take):
            m.d.sync += [
                word.eq(read.data),
                self.at.eq(self.following),
                self.following.eq(self.following + 1),
            ]
        return m
