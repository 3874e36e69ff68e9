"""The three entries of a program: load what is resident, clear the state, run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..spec.interface import STEPS_REGISTER
from ..spec.isa import Mode, Source, Store, Sums
from .allocate import Registers
from .emit import MOST_CHUNKS, Assembly
from .layout import Layout
from .lower_passes import LoadUnit
from .lower_stream import InputSums
from .lowering import Cursors, Site
from .place import Streamed
from .products import Product
from .schedule import Prefetch, Schedule
from .stages import Constant, Stage
from .vectors import Buffer


def write_program(layout: Layout) -> Assembly:
    """The entries `setup`, `reset` and `run`."""
    assembly = Assembly(layout.chip.config)
    assembly.entry("setup")
    if layout.weights is not None:
        layout.weights.load(assembly)
    load_constants(assembly, layout.constants)
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
    return assembly


def load_constants(assembly: Assembly, constants: list[Constant]) -> None:
    for memory, address, count, offset in constants:
        assembly.load_image(memory, address, count, offset)


def write_stages(layout: Layout, assembly: Assembly, stages: list[Stage]) -> None:
    for stage in stages:
        if stage.weights is not None:
            stage.weights.load(assembly)
        load_constants(assembly, stage.constants)
        if stage.once:
            write_units(layout, assembly, stage, Cursors(assembly))
        elif any(isinstance(unit, InputSums) for unit in stage.units):
            write_tiles(layout, assembly, stage)
        else:
            write_loop(layout, assembly, stage)


def write_units(
    layout: Layout,
    assembly: Assembly,
    stage: Stage,
    cursors: Cursors,
    ahead: Prefetch | None = None,
) -> None:
    """One step of a stage; `ahead` has the loads for the next one."""
    stream = stage.weights if isinstance(stage.weights, Streamed) else None
    if stream is not None:
        stream.begin()
    schedule = Schedule(assembly, stream, ahead)
    site = Site(assembly, schedule, cursors, layout.chip, layout.temporary)
    for unit in stage.units:
        unit.write(site)
    schedule.finish()


def clear(layout: Layout, assembly: Assembly) -> None:
    """Zero vector memory, sums, columns and last-sent values, as far as the program uses them."""
    chip, config = layout.chip, assembly.config

    def zero(size: int, name: str, step: int = MOST_CHUNKS, **fields: Any) -> None:
        for first in range(0, size, step):
            count = min(step, size - first)
            assembly.vector(count=count, source=Source.ZERO, **{**fields, name: first})

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
    """One loop over the time steps. Loads of inputs move on by themselves, all other addresses
    after the step.

    With columns to prefetch, the first step's are loaded before the loop and the last step stands
    behind it.
    """
    free = replace(layout.chip.registers)
    cursors = Cursors(assembly, reverse=stage.reverse)
    for buffer in stage.buffers():
        cursors.start(buffer, work_register(layout, stage, buffer, free))
    ahead = prefetched(stage) if layout.prefetch and free.left else []
    if not ahead:
        with assembly.loop(register=STEPS_REGISTER):
            write_step(layout, assembly, stage, cursors)
        return
    body = Stage([u for u in stage.units if u not in ahead], weights=stage.weights)
    site = Site(assembly, Schedule(assembly), cursors, layout.chip, layout.temporary)
    loads = [
        partial(unit.write_part, site, region, first, end)
        for unit in ahead
        for region in unit.output.columns.values()
        for first, end in region.parts()
    ]
    for load in loads:
        load()
    count = free.take("the number of steps before the last")
    assembly.set(count, -1, STEPS_REGISTER)
    with assembly.loop(register=count):
        write_step(layout, assembly, body, cursors, prefetch(body, ahead, site))
    write_step(layout, assembly, body, cursors)


def write_step(
    layout: Layout,
    assembly: Assembly,
    stage: Stage,
    cursors: Cursors,
    ahead: Prefetch | None = None,
) -> None:
    write_units(layout, assembly, stage, cursors, ahead)
    for buffer in stage.buffers():
        if not is_input(layout, buffer):
            cursors.advance(buffer)


def prefetched(stage: Stage) -> list[LoadUnit]:
    """Inputs whose columns can be loaded a step ahead: some product takes them."""
    regions = {product.feed.region for product in stage.products}
    return [
        unit
        for unit in stage.units
        if isinstance(unit, LoadUnit)
        and unit.output.native
        and regions & set(unit.output.columns.values())
    ]


def prefetch(stage: Stage, units: list[LoadUnit], site: Site) -> Prefetch:
    """The loads of the next step by the last product of this one that reads what they overwrite."""
    result: dict[Product, list[Callable[[], None]]] = {}
    for unit in units:
        for region in unit.output.columns.values():
            readers = [p for p in stage.products if p.feed.region is region]
            for first, end in region.parts():
                reading = [p for p in readers if p.first_group < end]
                load = partial(unit.write_part, site, region, first, end)
                result.setdefault((reading or readers)[-1], []).append(load)
    return result


def work_register(layout: Layout, stage: Stage, buffer: Buffer, free: Registers) -> int:
    """The buffer's own register where no other stage needs it, else one of this stage alone."""
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
    source, tile = (free.take(f"the tiles of {unit.name}") for _ in range(2))
    cursors.sums = free.take(f"the sums of {unit.name}")
    assembly.set(source, 0)
    assembly.set(tile, unit.section.offset, layout.scratch.register)
    with assembly.loop(count=len(unit.tiles)):
        unit.load(assembly, source)
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
