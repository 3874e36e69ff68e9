"""Which units share a loop over the time steps, and where everything lies.

One stage holds all units of a time step where it can. What runs backwards needs the whole sequence, so every direction
of a bidirectional GRU is a stage of its own; weights that do not fit the chip together are cut into stages as well. A
stage leaves what later ones read in the scratch, 16 bits an element, and weights are then loaded stage by stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnsupportedModelError
from ..spec.config import Config
from .allocate import Chip
from .ir import Graph
from .lower_gru import InitialUnit
from .lowering import Unit
from .place import Resident, fits, needs, place
from .products import Product, SlotRing
from .translate import Translation
from .vectors import Buffer, Vector


@dataclass(eq=False)
class Stage:
    """Units of one loop over the time steps; `weights` are its own where they are not resident."""

    units: list[Unit]
    reverse: bool = False
    weights: Resident | None = None

    @property
    def products(self) -> list[Product]:
        return [product for unit in self.units for product in unit.products]


@dataclass(eq=False)
class Layout:
    """Everything that writing needs: units by place (`before`: in reset; `after`: at the end of a run), addresses."""

    chip: Chip
    translation: Translation
    before: list[Unit]
    stages: list[Stage]
    after: list[Unit]
    scratch: Buffer
    resident: bool = True
    weights: Resident | None = None
    temporary: int = 0
    words: int = 0
    groups: int = 0
    late: Stage = field(default_factory=lambda: Stage([]))


def arrange(graph: Graph, config: Config) -> Layout:
    """Translate, cut into stages, plan and place. Raises CapacityError and UnsupportedModelError."""
    chip = Chip(config)
    translation = Translation(graph, chip).run()
    before, after = once_units(translation.units)
    steps = [unit for unit in translation.units if unit.per_step]
    scratch = Buffer("scratch", 0, True, own=True)
    layout = Layout(chip, translation, before, [Stage(steps)], after, scratch)
    plan(layout)
    allocate(layout)
    place_weights(layout)
    return layout


def once_units(units: list[Unit]) -> tuple[list[Unit], list[Unit]]:
    """(units that run before the first step, units that run after the last), of those that do not run every step."""
    needed: set[Vector] = set()
    before: list[Unit] = []
    for unit in reversed(units):
        early = isinstance(unit, InitialUnit) or (not unit.per_step and unit.output in needed)
        if not (unit.per_step or early):
            continue
        for piece in unit.inputs:
            if piece.final:
                raise UnsupportedModelError(
                    f"{unit.name} uses {piece.vector.name} of the last step in or before every step; "
                    "split the model there"
                )
            needed.add(piece.vector)
        if early:
            before.append(unit)
    after = [unit for unit in units if not unit.per_step and unit not in before]
    return before[::-1], after


def plan(layout: Layout) -> None:
    """All units' products, parameters and sums."""
    chip, units, ring = layout.chip, ordered(layout), SlotRing()
    for unit in units:
        unit.demand(chip.config)
    for unit in units:
        unit.plan(chip, ring)


def ordered(layout: Layout) -> list[Unit]:
    units = [*layout.before, *(u for stage in layout.stages for u in stage.units), *layout.after]
    return list(dict.fromkeys(units))


def allocate(layout: Layout) -> None:
    """Addresses of all vectors and their columns."""
    chip, config = layout.chip, layout.chip.config
    vectors = list(dict.fromkeys(unit.output for unit in ordered(layout)))
    for vector in vectors:
        if vector.in_memory:
            vector.address = chip.vector.take(config.chunks(vector.elements), vector.name)
        for region in vector.columns.values():
            region.address = chip.columns.take(region.words, vector.name)
    if config.arrays % config.chunk_groups:
        chip.columns.take(1, "the last chunk's overhang")
    temporary = max((unit.temporary_chunks for unit in ordered(layout)), default=0)
    layout.temporary = chip.vector.take(temporary, "the gates") if temporary else 0


def place_weights(layout: Layout) -> None:
    chip = layout.chip
    products = [product for unit in ordered(layout) for product in unit.products]
    layout.words, layout.groups = needs(products)
    layout.resident = fits(products, chip.config)
    layout.weights = place(products, chip.config, chip.image)
