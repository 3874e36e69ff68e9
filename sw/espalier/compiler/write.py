"""The three entries of a program: load what is resident, clear the state, run."""

from __future__ import annotations

import numpy as np

from ..spec.interface import STEPS_REGISTER
from ..spec.isa import Mode, Source, Store, Sums
from ..spec.memory import Memory
from ..spec.numerics import TABLE_SEGMENTS
from .allocate import table_words
from .emit import MOST_CHUNKS, Assembly
from .lower_passes import LoadUnit
from .lowering import Cursors, Site, Unit
from .schedule import Schedule
from .stages import Layout, Stage
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
    write_units(layout.before, site(layout, assembly, Cursors(assembly)))
    assembly.halt()

    assembly.entry("run")
    for stage in layout.stages:
        write_stage(layout, assembly, stage)
    end = site(layout, assembly, Cursors(assembly))
    write_units(layout.after, end)
    store_finals(layout, end)
    assembly.halt()


def site(layout: Layout, assembly: Assembly, cursors: Cursors) -> Site:
    return Site(assembly, Schedule(assembly), cursors, layout.chip, layout.temporary)


def write_units(units: list[Unit], where: Site) -> None:
    for unit in units:
        unit.write(where)
    where.schedule.finish()


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


def write_stage(layout: Layout, assembly: Assembly, stage: Stage) -> None:
    """One loop over the time steps."""
    if not stage.units:
        return
    cursors = Cursors(assembly, reverse=stage.reverse)
    stored = stored_buffers(stage)
    for buffer in dict.fromkeys([*loaded_buffers(stage), *stored]):
        cursors.start(buffer, buffer.register)
    with assembly.loop(register=STEPS_REGISTER):
        write_units(stage.units, site(layout, assembly, cursors))
        for buffer in stored:
            cursors.advance(buffer)


def loaded_buffers(stage: Stage) -> list[Buffer]:
    return [unit.section.buffer for unit in stage.units if isinstance(unit, LoadUnit)]


def stored_buffers(stage: Stage) -> list[Buffer]:
    sections = [section for unit in stage.units for section in unit.output.stores]
    return list(dict.fromkeys(section.buffer for section in sections))


def store_finals(layout: Layout, where: Site) -> None:
    """What a run gives once: last states and what was computed from them."""
    for vector, section in layout.translation.finals:
        where.assembly.vector(
            count=where.config.chunks(vector.elements),
            source=Source.OPERAND,
            operand0=vector.address,
            store=Store.VALUES,
            register=where.cursors.address(section),
            section=section.name,
        )
