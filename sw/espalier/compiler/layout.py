"""Stages, residency and addresses of a whole program, decided together.

First choice is all weights on the chip for good, second stage by stage, and layers that do not even
fit alone are streamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..spec.config import Config
from ..spec.memory import Memory
from .allocate import Chip, Space, table_words
from .ir import Graph
from .lower_stream import InputSums
from .lowering import Unit
from .place import Resident, Streamed, fits, place
from .products import Product, SlotRing
from .stages import Constant, Stages
from .translate import Translation
from .vectors import Buffer


@dataclass(eq=False)
class Layout:
    """Everything that writing needs. `weights` are the resident ones, if all are; `temporary` is
    the first chunk of the vector memory that units use within themselves."""

    chip: Chip
    translation: Translation
    stages: Stages
    weights: Resident | None = None
    temporary: int = 0
    constants: list[Constant] = field(default_factory=list)
    """Loaded once."""
    parameters: int = 0
    """Chunks of parameter memory in use."""
    prefetch: bool = True
    """Load a step's columns during the step before; takes about twice the instructions."""

    @property
    def units(self) -> list[Unit]:
        return self.stages.units

    @property
    def products(self) -> list[Product]:
        return [product for unit in self.units for product in unit.products]

    @property
    def scratch(self) -> Buffer:
        return self.translation.scratch

    @property
    def resident(self) -> bool:
        return self.weights is not None


def arrange(graph: Graph, config: Config) -> Layout:
    """Translate, cut into stages, plan, place. Raises CapacityError and UnsupportedModelError."""
    least = [unit.least_words(config) for unit in Translation(graph, Chip(config)).run().units]
    streamed = {number for number, words in enumerate(least) if words > config.weight_depth}
    if sum(least) <= config.weight_depth:
        layout = attempt(graph, config, False, streamed)
        if fits(layout.products, config) and chunks(layout.units) <= config.parameter_depth:
            return finish(layout)
    layout = attempt(graph, config, True, streamed)
    more = {
        layout.translation.units.index(unit)
        for stage in layout.stages.all
        if not stage.streamed and not fits(stage.products, config)
        for unit in stage.units
        if unit.products
    }
    if more:
        layout = attempt(graph, config, True, streamed | more)
    return finish(layout)


def attempt(graph: Graph, config: Config, separate: bool, streamed: set[int]) -> Layout:
    """The planned stages, without addresses."""
    chip = Chip(config)
    translation = Translation(graph, chip).run()
    for number, unit in enumerate(translation.units):
        unit.streamed = number in streamed
    stages = Stages(translation, separate).cut()
    ring = SlotRing()
    for unit in stages.units:
        unit.demand(config)
    for unit in stages.units:
        unit.plan(chip, ring)
    return Layout(chip, translation, stages)


def finish(layout: Layout) -> Layout:
    """Give everything its address."""
    place_vectors(layout)
    place_weights(layout)
    place_constants(layout)
    place_buffers(layout)
    return layout


def place_vectors(layout: Layout) -> None:
    """Vector memory, columns, and what units use within themselves."""
    chip, config = layout.chip, layout.chip.config
    for vector in dict.fromkeys(unit.output for unit in layout.units):
        if vector.in_memory:
            vector.address = chip.vector.take(config.chunks(vector.elements), vector.name)
        for region in vector.columns.values():
            region.address = chip.columns.take(region.words, vector.name)
    if config.arrays % config.chunk_groups:
        chip.columns.take(1, "the last chunk's overhang")
    chunks = max((unit.temporary_chunks for unit in layout.units), default=0)
    layout.temporary = chip.vector.take(chunks, "the gates") if chunks else 0
    sums = max((unit.temporary_sums for unit in layout.units), default=0)
    first = chip.sums.take(sums, "sums within a step") if sums else 0
    for unit in layout.units:
        if unit.temporary_sums:
            unit.place_sums(first)


def place_weights(layout: Layout) -> None:
    chip, config = layout.chip, layout.chip.config
    if not any(stage.streamed for stage in layout.stages.all) and fits(layout.products, config):
        layout.weights = place(layout.products, config, chip.image)
        return
    for stage in layout.stages.all:
        if stage.streamed and stage.products:
            stage.weights = Streamed(stage.products, config, chip.image)
        elif stage.products:
            stage.weights = place(stage.products, config, chip.image)
        for unit in stage.units:
            if isinstance(unit, InputSums):
                unit.place(config, chip.image)


def chunks(units: list[Unit]) -> int:
    """Parameter memory of units together."""
    return sum(parameters.chunks for unit in units for parameters in unit.requantized)


def place_constants(layout: Layout) -> None:
    """Tables, and row parameters: all for good, or, where they do not fit, each stage's own."""
    chip, config = layout.chip, layout.chip.config
    if chip.tables:
        words = np.concatenate([table_words(name) for name in chip.tables])
        layout.constants.append((Memory.TABLES, 0, len(words), chip.image.add(words.tobytes())))
    stages = layout.stages.all
    shared = layout.units
    if chunks(shared) > config.parameter_depth:
        shared = [unit for unit in shared if sum(unit in stage.units for stage in stages) > 1]
    layout.constants += parameter_load(layout, shared, 0)
    layout.parameters = first = chunks(shared)
    for stage in stages:
        own = [unit for unit in stage.units if unit not in shared]
        stage.constants = parameter_load(layout, own, first)
        layout.parameters = max(layout.parameters, first + chunks(own))


def parameter_load(layout: Layout, units: list[Unit], first: int) -> list[Constant]:
    """Give the units' parameters addresses from chunk `first`; the LOAD that brings them, if there
    are any."""
    config = layout.chip.config
    space = Space("parameter", config.parameter_depth, "chunks", config.name, first)
    words = []
    for unit in units:
        for parameters in unit.requantized:
            parameters.address = space.take(parameters.chunks, unit.name)
            words.append(parameters.words(config))
    if not words:
        return []
    data = np.concatenate(words)
    return [(Memory.PARAMETERS, first, len(data), layout.chip.image.add(data.tobytes()))]


def place_buffers(layout: Layout) -> None:
    """Registers of the scratch, and of the last step where something starts there."""
    registers, scratch = layout.chip.registers, layout.scratch
    if scratch.size_bytes:
        scratch.register = registers.take("the scratch")
    backwards = [b for stage in layout.stages.loops if stage.reverse for b in stage.buffers()]
    for buffer in dict.fromkeys([*backwards, *layout.translation.read_at_end]):
        buffer.reverse = registers.take(f"the last step of {buffer.name}")


def memory_use(layout: Layout) -> dict[str, list[int]]:
    """[used, size] of every memory."""
    chip, config = layout.chip, layout.chip.config
    words, groups = 0, 0
    for resident in [layout.weights, *(stage.weights for stage in layout.stages.all)]:
        if resident is not None:
            words, groups = max(words, resident.words), max(groups, resident.groups)
    return {
        "weights": [words, config.weight_depth],
        "descriptors": [groups, config.descriptor_depth],
        "columns": [chip.columns.used, config.column_depth],
        "last_sent": [chip.last.used, config.column_depth],
        "vector": [chip.vector.used, config.vector_depth],
        "sums": [chip.sums.used, config.sum_depth],
        "parameters": [layout.parameters, config.parameter_depth],
        "tables": [len(chip.tables), config.tables],
    }
