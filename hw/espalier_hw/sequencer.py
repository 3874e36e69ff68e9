"""The sequencer: runs a program, instruction after instruction (spec.isa)."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import Config

from .instruction_fetch import InstructionFetch
from .interfaces import ProgramWrite
from .issue import Commands, Issue
from .loop_stack import PC_BITS
from .register_file import RegisterPort

LONGEST_LOAD = 0xFFFF


class Sequencer(Component):
    """Runs the program from `entry` to HALT.

    Timing: an instruction takes one cycle to decode and is executed in the next one or, while its
    waits are not met or its unit's queue is full, in a later one: one instruction in 2 cycles, LOOP
    and a bounded VECTOR in 3, one more after a jump (END of a pass, LOOP of no pass). A unit sees
    its command in the execute cycle; after the last `completed` pulse that an instruction waits for
    it is executed one cycle later. A LOAD into program memory holds up what follows until it is
    complete, so that no instruction is stale.

    Members
    -------
    start: strobe: begin at `entry`, with `load_program` after loading `length` instructions from
    window offset 0.
    halted: strobe: HALT was reached and every unit is idle.
    illegal: an instruction cannot be executed; stays until reset.
    pc: address of the illegal instruction, else of the last one issued.
    issued: event, one instruction was executed (SET, LOOP, END and HALT count too).
    registers: the host's access to R0..R15. program: instructions from the loader.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "commands": Out(Commands()),
                "registers": In(RegisterPort()),
                "program": In(ProgramWrite()),
                "start": In(1),
                "load_program": In(1),
                "entry": In(32),
                "length": In(32),
                "halted": Out(1),
                "illegal": Out(1),
                "pc": Out(PC_BITS),
                "issued": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = InstructionFetch(self._config)
        m.submodules.issue = issue = Issue(self._config.vector_lanes)
        connect(m, flipped(self.program), fetch.program)
        connect(m, flipped(self.registers), issue.host)
        connect(m, issue.commands, flipped(self.commands))
        beyond = Signal()
        last = Signal(PC_BITS)
        longest = min(self._config.program_depth, LONGEST_LOAD)
        m.d.sync += beyond.eq(fetch.at >= self.length)
        m.d.comb += [
            issue.word.eq(fetch.word),
            issue.following.eq(fetch.following),
            issue.decode.eq(fetch.decode),
            issue.length.eq(self.length),
            fetch.target.eq(issue.target),
            self.pc.eq(last),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += last.eq(self.entry)
                    m.next = "BEGIN"
                    with m.If(self.load_program):
                        m.next = "PRELOAD"
                    with m.If((self.entry >= self.length) | (self.length > longest)):
                        m.next = "ILLEGAL"
            with m.State("PRELOAD"):
                m.d.comb += issue.preload.eq(1)
                with m.If(issue.done):
                    m.next = "PRELOADED"
            with m.State("PRELOADED"):
                with m.If(issue.load_idle):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += [issue.begin.eq(1), fetch.target.eq(self.entry)]
                m.d.comb += [fetch.branch.eq(1), fetch.jump.eq(1)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [
                    issue.execute.eq(fetch.valid & ~beyond),
                    fetch.advance.eq(issue.done),
                    fetch.branch.eq(issue.branch & fetch.valid),
                    fetch.jump.eq(issue.jump),
                    self.issued.eq(issue.done),
                    self.halted.eq(issue.halted),
                ]
                illegal = fetch.valid & (beyond | issue.illegal)
                with m.If(issue.done | illegal):
                    m.d.sync += last.eq(fetch.at)
                with m.If(issue.reload):
                    m.next = "RELOAD"
                with m.If(issue.halted):
                    m.next = "IDLE"
                with m.If(illegal):
                    m.next = "ILLEGAL"
            with m.State("RELOAD"):
                m.d.comb += [fetch.target.eq(fetch.at), fetch.branch.eq(1)]
                with m.If(issue.load_idle):
                    m.d.comb += fetch.jump.eq(1)
                    m.next = "RUN"
            with m.State("ILLEGAL"):
                m.d.comb += self.illegal.eq(1)
        return m
