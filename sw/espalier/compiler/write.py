"""The three entries of a program: load what is resident, clear the state, run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..spec.interface import STEPS_REGISTER
from ..spec.isa import Mode, Source, Store, Sums
from ..spec.memory import Memory
from ..spec.numerics import TABLE_SEGMENTS
from .allocate import Registers, table_words
from .emit import MOST_CHUNKS, Assembly
from .layout import Layout
from .lower_stream import InputSums
from .lowering import Cursors, Site
from .place import Streamed
from .schedule import Schedule
from .stages import Stage
from .vectors import Buffer


def write_program(layout: Layout, assembly: Assembly) -> None:
    """Write `setup`, `reset` and `run`, and the data that they load."""
    assembly.entry("setup")
    if layout.weights is not None:
        layout.weights.load(assembly)
    load_constants(layout, assembly)
    assembly.halt()

    assembly.entry("reset")
    clear(layout, assembly)
    write_stages(layout, assembly, layout.stages.before)
    assembly.halt()

    assembly.entry("run")
    write_stages(layout, assembly, layout.stages.loops)
    write_stages(layout, assembly, layout.stages.after)
    store_finals(layout, assembly)
    assembly.halt()


def write_stages(layout: Layout, assembly: Assembly, stages: list[Stage]) -> None:
    for stage in stages:
        if stage.weights is not None:
            stage.weights.load(assembly)
        if stage.once:
            write_units(layout, assembly, stage, Cursors(assembly))
        elif any(isinstance(unit, InputSums) for unit in stage.units):
            write_tiles(layout, assembly, stage)
        else:
            write_loop(layout, assembly, stage)


def write_units(layout: Layout, assembly: Assembly, stage: Stage, cursors: Cursors) -> None:
    """One step of a stage."""
    stream = stage.weights if isinstance(stage.weights, Streamed) else None
    schedule = Schedule(assembly, stream)
    site = Site(assembly, schedule, cursors, layout.chip, layout.temporary)
    for unit in stage.units:
        unit.write(site)
    schedule.finish()


def load_constants(layout: Layout, assembly: Assembly) -> None:
    """Row parameters and tables."""
    chip = layout.chip
    if chip.parameters:
        words = np.concatenate([p.words(assembly.config) for p in chip.parameters])
        offset = chip.image.add(words.astype("<u8").tobytes())
        assembly.load_image(Memory.PARAMETERS, 0, len(words), offset)
    if chip.tables:
        words = np.concatenate([table_words(name) for name in chip.tables])
        offset = chip.image.add(words.astype("<u8").tobytes())
        assembly.load_image(Memory.TABLES, 0, len(chip.tables) * TABLE_SEGMENTS, offset)


def clear(layout: Layout, assembly: Assembly) -> None:
    """Zero vector memory, sums, columns and last-sent values, as far as the program uses them."""
    chip, config = layout.chip, assembly.config

    def zero(size: int, name: str, step: int = MOST_CHUNKS, **fields: int) -> None:
        for first in range(0, size, step):
            count = min(step, size - first)
            assembly.vector(count=count, source=Source.ZERO, **fields, **{name: first})

    zero(chip.vector.used, "vector_address", write_vector=1)
    zero(chip.sums.used, "sum_address", sums=Sums.WRITE)
    words = MOST_CHUNKS * config.chunk_groups // config.arrays
    for first in range(0, chip.columns.used, words):
        groups = min(words, chip.columns.used - first) * config.arrays
        count = groups // config.chunk_groups
        assembly.vector(count=count, source=Source.ZERO, write_columns=1, column_address=first)
    if chip.last.used:
        assembly.product(mode=Mode.CLEAR, groups=chip.last.used)


def write_loop(layout: Layout, assembly: Assembly, stage: Stage) -> None:
    """One loop over the time steps. Loads of inputs move on by themselves, all other addresses after the step."""
    free = replace(layout.chip.registers)
    cursors = Cursors(assembly, reverse=stage.reverse)
    for buffer in stage.buffers():
        cursors.start(buffer, work_register(layout, stage, buffer, free))
    with assembly.loop(register=STEPS_REGISTER):
        write_units(layout, assembly, stage, cursors)
        for buffer in stage.buffers():
            if not is_input(layout, buffer):
                cursors.advance(buffer)


def work_register(layout: Layout, stage: Stage, buffer: Buffer, free: Registers) -> int:
    """The buffer's own register where no other stage needs it, else one that only this stage uses."""
    others = [s for s in layout.stages.loops if s is not stage and buffer in s.buffers()]
    if others or any(isinstance(unit, InputSums) for unit in stage.units):
        return free.take(f"the address of {buffer.name} in a step")
    register = buffer.reverse if stage.reverse else buffer.register
    assert register is not None
    return register


def is_input(layout: Layout, buffer: Buffer) -> bool:
    return any(plan.buffer is buffer for plan in layout.translation.inputs)


def write_tiles(layout: Layout, assembly: Assembly, stage: Stage) -> None:
    """Every tile of input weights over all time steps (`lower_stream`)."""
    free = replace(layout.chip.registers)
    unit = next(unit for unit in stage.units if isinstance(unit, InputSums))
    cursors = Cursors(assembly)
    registers = {b: work_register(layout, stage, b, free) for b in stage.buffers()}
    weights, descriptors, tile = (free.take(f"the tiles of {unit.name}") for _ in range(3))
    cursors.sums = free.take(f"the sums of {unit.name}")
    assembly.set(weights, 0)
    assembly.set(descriptors, 0)
    assembly.set(tile, unit.section.offset, layout.scratch.register)
    with assembly.loop(count=len(unit.tiles)):
        unit.load(assembly, weights, descriptors)
        for buffer, register in registers.items():
            cursors.start(buffer, register)
        assembly.set(cursors.sums, 0, tile)
        with assembly.loop(register=STEPS_REGISTER):
            write_units(layout, assembly, stage, cursors)
            for buffer, register in registers.items():
                if not is_input(layout, buffer):
                    assembly.set(register, cursors.stride(buffer), register)
            assembly.set(cursors.sums, layout.scratch.stride_bytes, cursors.sums)
        assembly.set(tile, unit.tile_bytes, tile)


def store_finals(layout: Layout, assembly: Assembly) -> None:
    """What a run gives once: last states and what was computed from them."""
    cursors = Cursors(assembly)
    for vector, section in layout.translation.finals:
        assembly.vector(
            count=assembly.config.chunks(vector.elements),
            source=Source.OPERAND,
            operand0=vector.address,
            store=Store.VALUES,
            register=cursors.address(section),
        )
