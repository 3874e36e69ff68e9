"""Run control: what START, ABORT and CLEAR_FAULT do, and what happens on a fault."""

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.registers import Control, Fault

from .bursts import FaultReport
from .counters import SWEEP_CYCLES
from .interfaces import ADDRESS_BITS
from .loop_stack import PC_BITS

COMMAND = data.StructLayout({control.name.lower(): 1 for control in Control})
"""Strobes, in the order of `spec.registers.Control`."""
STATUS = data.StructLayout({"busy": 1, "done": 1, "fault": 1, "draining": 1})
"""In the order of `spec.registers.Status`."""
FAULT = data.StructLayout({"cause": 3, "pc": PC_BITS, "address": ADDRESS_BITS})


class RunControl(Component):
    """Starts the sequencer, stops the machine on a fault, resets the units before the next run.

    IDLE --START--> CLEAR (slots, only when dirty) -> RUN --HALT--> SETTLE (counters; scalars
    that are still computed) -> IDLE, DONE. RUN --fault--> DRAIN (no further burst; engine, vector
    unit and sequencer in reset) -> STOPPED once no burst is in flight (loader and store unit in
    reset too) --CLEAR_FAULT--> IDLE, slots dirty.

    The watchdog counts cycles of RUN without `progress`; 0 never bites. Of faults in the same
    cycle the loader's is reported, then the store unit's, an illegal instruction, ABORT, the
    watchdog.

    Members
    -------
    start, load_program: to the sequencer; halted, illegal, pc: from it.
    clear, clearing: to and from the engine's slots.
    stop: no further burst. reset_units: engine, vector unit, sequencer. reset_masters: loader and
    store unit.
    reducing: the vector unit still computes a scalar.
    running: from START to HALT or fault. clear_counters: strobe at START.
    """

    command: In(COMMAND)
    status: Out(STATUS)
    fault: Out(FAULT)
    watchdog: In(32)
    progress: In(1)
    start: Out(1)
    load_program: Out(1)
    halted: In(1)
    illegal: In(1)
    pc: In(PC_BITS)
    clear: Out(1)
    clearing: In(1)
    loader_fault: In(FaultReport())
    store_fault: In(FaultReport())
    masters_idle: In(1)
    reducing: In(1)
    stop: Out(1)
    reset_units: Out(1)
    reset_masters: Out(1)
    running: Out(1)
    clear_counters: Out(1)

    def elaborate(self, platform):
        m = Module()
        dirty = Signal(init=1)
        settling = Signal(range(SWEEP_CYCLES + 1))
        waiting = Signal()
        abort = Signal()
        m.d.comb += [
            self.status.fault.eq(self.fault.cause != Fault.NONE),
            self.status.busy.eq(self.running | waiting),
        ]
        with m.If(self.command.abort):
            m.d.sync += abort.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += abort.eq(0)
                m.d.sync += self.load_program.eq(self.command.load_program)
                with m.If(self.command.start):
                    m.d.comb += self.clear_counters.eq(1)
                    m.d.sync += self.status.done.eq(0)
                    m.next = "START"
                    with m.If(dirty):
                        m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [self.running.eq(1), self.clear.eq(1)]
                m.next = "CLEARED"
            with m.State("CLEARED"):
                m.d.comb += self.running.eq(1)
                with m.If(~self.clearing):
                    m.d.sync += dirty.eq(0)
                    m.next = "START"
            with m.State("START"):
                m.d.comb += [self.running.eq(1), self.start.eq(1)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(self.halted):
                    m.d.sync += settling.eq(SWEEP_CYCLES)
                    m.next = "SETTLE"
                self._faults(m, abort)
            with m.State("SETTLE"):
                m.d.comb += waiting.eq(1)
                m.d.sync += settling.eq(settling - (settling != 0))
                with m.If((settling == 0) & ~self.reducing):
                    m.d.sync += self.status.done.eq(1)
                    m.next = "IDLE"
            with m.State("DRAIN"):
                m.d.comb += [self.status.draining.eq(1), self.stop.eq(1), self.reset_units.eq(1)]
                m.d.sync += dirty.eq(1)
                with m.If(self.masters_idle):
                    m.next = "STOPPED"
            with m.State("STOPPED"):
                m.d.comb += [self.stop.eq(1), self.reset_units.eq(1), self.reset_masters.eq(1)]
                with m.If(self.command.clear_fault):
                    m.d.sync += self.fault.eq(0)
                    m.next = "IDLE"
        return m

    def _faults(self, m, abort):
        """In RUN: the first reason to stop, the strongest one last."""
        waited = Signal(32)
        m.d.sync += waited.eq(waited + 1)
        with m.If(self.progress | (self.watchdog == 0)):
            m.d.sync += waited.eq(0)

        def stop(condition, cause, address=0):
            with m.If(condition):
                m.d.sync += [
                    self.fault.cause.eq(cause),
                    self.fault.pc.eq(self.pc),
                    self.fault.address.eq(address),
                ]
                m.next = "DRAIN"

        stop((waited >= self.watchdog) & (self.watchdog != 0), Fault.WATCHDOG)
        stop(abort, Fault.ABORTED)
        stop(self.illegal, Fault.ILLEGAL_INSTRUCTION)
        for report in (self.store_fault, self.loader_fault):
            stop(report.valid, report.cause, report.address)
