"""The accelerator: all units wired together."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from espalier.spec.config import Config
from espalier.spec.memory import Memory

from .control import RunControl
from .datapath import KEEP
from .engine import DRAIN_LATENCY, Engine
from .interfaces import Axi4, Axi4Lite
from .loader import Loader
from .register_block import RegisterBlock
from .sequencer import Sequencer
from .store import StoreUnit
from .vector_unit import VectorUnit

ENGINE_MEMORIES = (Memory.ACTIVATIONS, Memory.DESCRIPTORS)
"""Memories behind the engine's item stream; the others are the vector unit's."""


class Accelerator(Component):
    """One accelerator of `config`: DDR master `axi`, host slave `csr`, and `interrupt`, which is
    DONE or FAULT.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({"axi": Out(Axi4()), "csr": In(Axi4Lite()), "interrupt": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.registers = registers = RegisterBlock(config)
        m.submodules.control = control = RunControl()
        loader, store = Loader(config), StoreUnit(config)
        sequencer, engine = Sequencer(config), Engine(config)
        vector = VectorUnit(config, drain_latency=DRAIN_LATENCY)
        self._add_units(m, control.reset_masters, {"loader": loader, "store": store})
        self._add_units(m, control.reset_units, {"sequencer": sequencer, "vector": vector})
        m.submodules.engine = engine
        m.d.comb += engine.reset.eq(control.reset_units)

        connect(m, flipped(self.csr), registers.bus)
        connect(m, registers.registers, sequencer.registers)
        connect(m, loader.program, sequencer.program)
        connect(m, loader.weights, engine.weights)
        connect(m, vector.drain, engine.drain)
        connect(m, vector.columns, engine.columns)
        connect(m, vector.store, store.chunks)
        self._bus(m, loader, store)
        self._commands(m, sequencer, loader, engine, vector, store)
        self._items(m, loader, engine, vector)
        self._control(m, registers, control, sequencer, loader, store, engine, vector)
        self._events(m, registers, control, sequencer, loader, store, engine, vector)
        return m

    def _add_units(self, m, reset, units):
        """Submodules with a reset register each, a cycle behind `reset`: one net for all of them
        would be the slowest of the machine."""
        for name, unit in units.items():
            own = Signal(name="own_reset", attrs=KEEP)
            m.d.sync += own.eq(reset)
            m.submodules[name] = ResetInserter(own)(unit)

    def _bus(self, m, loader, store):
        """Read half and write half make one AXI4 port."""
        for half in (loader.bus, store.bus):
            for name, member in half.signature.members.items():
                inner, outer = getattr(half, name), getattr(self.axi, name)
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)

    def _commands(self, m, sequencer, loader, engine, vector, store):
        commands = sequencer.commands
        units = {"load": loader, "engine": engine, "vector": vector, "store": store}
        for name, unit in units.items():
            connect(m, getattr(commands, name), unit.commands)
            m.d.comb += commands.completed[name].eq(unit.completed)
        connect(m, commands.weights, loader.weight_commands)
        m.d.comb += commands.completed.weights.eq(loader.weights_completed)

    def _items(self, m, loader, engine, vector):
        """Loader items go to the unit that owns the memory."""
        items = loader.items
        to_engine = Cat(items.payload.memory == memory for memory in ENGINE_MEMORIES).any()
        m.d.comb += [
            engine.items.payload.eq(items.payload),
            engine.items.valid.eq(items.valid & to_engine),
            vector.items.payload.eq(items.payload),
            vector.items.valid.eq(items.valid & ~to_engine),
            items.ready.eq(Mux(to_engine, engine.items.ready, vector.items.ready)),
        ]

    def _control(self, m, registers, control, sequencer, loader, store, engine, vector):
        connect(m, loader.fault, control.loader_fault)
        connect(m, store.fault, control.store_fault)
        m.d.comb += [
            control.command.eq(registers.command),
            registers.status.eq(control.status),
            registers.fault.eq(control.fault),
            registers.clear_counters.eq(control.clear_counters),
            control.watchdog.eq(registers.watchdog),
            sequencer.start.eq(control.start),
            sequencer.load_program.eq(control.load_program),
            sequencer.entry.eq(registers.entry),
            sequencer.length.eq(registers.program_length),
            control.halted.eq(sequencer.halted),
            control.illegal.eq(sequencer.illegal),
            control.pc.eq(sequencer.pc),
            engine.clear.eq(control.clear),
            control.clearing.eq(engine.clearing),
            control.masters_idle.eq(loader.idle & store.idle),
            control.reducing.eq(vector.reducing),
            self.interrupt.eq(control.status.done | control.status.fault),
        ]
        for master in (loader, store):
            m.d.comb += [
                master.stop.eq(control.stop),
                master.window_base.eq(registers.window_base),
                master.window_size.eq(registers.window_size),
            ]

    def _events(self, m, registers, control, sequencer, loader, store, engine, vector):
        """Counted a cycle later: the units' strobes come from everywhere, and nobody waits."""
        events = registers.events
        completed = sequencer.commands.completed.as_value().any()
        m.d.sync += [
            control.progress.eq(completed | sequencer.issued | loader.read_beat | store.write_beat),
            events.instructions.eq(sequencer.issued),
            events.product_cycles.eq(engine.events.running),
            events.words.eq(engine.events.words),
            events.visits.eq(engine.events.visits),
            events.skipped.eq(engine.events.skipped),
            events.chunks.eq(vector.chunk_taken),
            events.read_beats.eq(loader.read_beat),
            events.write_beats.eq(store.write_beat),
        ]
        m.d.comb += events.cycles.eq(control.running)
