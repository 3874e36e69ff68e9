"""Which units share a loop over the time steps.

One stage holds all units of a time step where it can. What runs backwards needs the whole sequence,
so every layer and direction of a bidirectional GRU is a stage of its own; weights that do not fit
the chip together are cut into stages as well, and their weights are loaded stage by stage. A stage
leaves in the scratch what later ones read, 16 bits an element. A layer that does not fit the chip
even alone is streamed: its recurrent weights (or all of them) pass through the weight memory every
step, and its input weights once a run, for all time steps, before (`lower_stream`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnsupportedModelError
from ..spec.memory import Memory
from .lower_gru import CellUnit
from .lower_initial import InitialUnit
from .lower_linear import LinearUnit
from .lower_passes import LoadUnit
from .lower_stream import InputSums
from .lowering import Unit
from .place import Resident, Streamed
from .products import Product
from .translate import Translation
from .vectors import Buffer, Vector

Constant = tuple[Memory, int, int, int]
"""A LOAD of parameters or tables: memory, address, count, offset in the image."""


@dataclass(eq=False)
class Stage:
    """Units that are written together: one loop over the time steps, or (`once`) none.

    `weights` and `constants` are the stage's own where they are not resident.
    """

    units: list[Unit]
    once: bool = False
    reverse: bool = False
    weights: Resident | Streamed | None = None
    constants: list[Constant] = field(default_factory=list)

    @property
    def products(self) -> list[Product]:
        return [product for unit in self.units for product in unit.products]

    @property
    def streamed(self) -> bool:
        return any(unit.streamed for unit in self.units)

    def buffers(self) -> list[Buffer]:
        """All buffers that a step loads from or stores to."""
        sections = [s for unit in self.units for s in unit.sections()]
        return list(dict.fromkeys(section.buffer for section in sections))


@dataclass
class Stages:
    """The stages of a translation: `before` run in reset, `loops` for all time steps, `after` at
    the end of a run."""

    translation: Translation
    separate: bool
    """Give every layer a stage of its own."""
    before: list[Stage] = field(default_factory=list)
    loops: list[Stage] = field(default_factory=list)
    after: list[Stage] = field(default_factory=list)
    _made_in: dict[Vector, int] = field(default_factory=dict)
    _loads: dict[Vector, LoadUnit] = field(default_factory=dict)

    def cut(self) -> Stages:
        units = self.translation.units
        before, after = once_units(units)
        steps = [unit for unit in units if unit.per_step]
        self._loads = {u.output: u for u in units if isinstance(u, LoadUnit)}
        if self.separate or any(unit.reverse for unit in steps):
            for unit in steps:
                self._place(unit)
            self._finals(after)
        elif steps:
            self.loops = [Stage(steps)]
        self.before, self.after = self._once(before), self._once(after)
        return self

    @property
    def all(self) -> list[Stage]:
        return [*self.before, *self.loops, *self.after]

    @property
    def units(self) -> list[Unit]:
        return list(dict.fromkeys(unit for stage in self.all for unit in stage.units))

    def _once(self, units: list[Unit]) -> list[Stage]:
        if not self.separate:
            return [Stage(units, once=True)] if units else []
        stages: list[Stage] = []
        for unit in units:
            if not stages or isinstance(unit, LinearUnit):
                stages.append(Stage([], once=True))
            stages[-1].units.append(unit)
        return stages

    def _place(self, unit: Unit) -> None:
        """Put a unit of the time steps into an existing stage, or a new one, with the loads that it
        needs there."""
        if isinstance(unit, LoadUnit):
            if unit.output.stores:
                self._into(0 if self.loops else self._new(False), unit)
            return
        if isinstance(unit, CellUnit) and unit.streamed and not unit.thresholds:
            sums = InputSums.of(unit, self.translation.scratch)
            self._into(self._new(False), sums)
        self._into(self._stage_for(unit), unit)

    def _stage_for(self, unit: Unit) -> int:
        latest = max((self._made_in.get(p.vector, 0) for p in unit.inputs), default=0)
        alone = isinstance(unit, CellUnit) or (self.separate and isinstance(unit, LinearUnit))
        if not alone:
            for number in range(latest, len(self.loops)):
                if not self.loops[number].reverse and not self._tiled(number):
                    return number
        return self._new(unit.reverse)

    def _tiled(self, number: int) -> bool:
        return any(isinstance(unit, InputSums) for unit in self.loops[number].units)

    def _new(self, reverse: bool) -> int:
        self.loops.append(Stage([], reverse=reverse))
        return len(self.loops) - 1

    def _into(self, number: int, unit: Unit) -> None:
        stage = self.loops[number]
        for vector in dict.fromkeys(p.vector for p in unit.inputs if p.vector.per_step):
            if self._made_in.get(vector) == number and not isinstance(unit, LoadUnit):
                continue
            if vector in self._loads:
                if self._loads[vector] not in stage.units:
                    stage.units.append(self._loads[vector])
            else:
                unit.substitute(vector, self._reload(stage, vector))
        stage.units.append(unit)
        self._made_in[unit.output] = number

    def _reload(self, stage: Stage, vector: Vector) -> Vector:
        """What an earlier stage made, loaded again in this one."""
        section = self.translation.in_scratch(vector)
        for unit in stage.units:
            if isinstance(unit, LoadUnit) and unit.section is section:
                return unit.output
        copy = Vector(f"{vector.name} again", vector.elements, vector.scale)
        stage.units.append(LoadUnit(copy.name, [], copy, True, section))
        return copy

    def _finals(self, after: list[Unit]) -> None:
        """Inputs of the last step: stages may have loaded another step since."""
        if not any(stage.reverse for stage in self.loops):
            return
        copies: dict[Vector, Vector] = {}

        def last(vector: Vector) -> Vector:
            load = self._loads.get(vector)
            if load is None or not vector.per_step:
                return vector
            if vector not in copies:
                copies[vector] = self.translation.last_of(vector, load.section)
                after.insert(0, self.translation.units[-1])
            return copies[vector]

        for unit in list(after):
            for piece in unit.inputs:
                unit.substitute(piece.vector, last(piece.vector))
        finals = self.translation.finals
        finals[:] = [(last(vector), section) for vector, section in finals]


def once_units(units: list[Unit]) -> tuple[list[Unit], list[Unit]]:
    """(units that run before the first step, units that run after the last), of those that do not
    run every step."""
    needed: set[Vector] = set()
    before: list[Unit] = []
    for unit in reversed(units):
        early = isinstance(unit, InitialUnit) or (not unit.per_step and unit.output in needed)
        if not (unit.per_step or early):
            continue
        for piece in unit.inputs:
            if piece.final:
                raise UnsupportedModelError(
                    f"{unit.name} uses {piece.vector.name} of the last step in or before every "
                    "step; split the model there"
                )
            needed.add(piece.vector)
        if early:
            before.append(unit)
    after = [unit for unit in units if not unit.per_step and unit not in before]
    return before[::-1], after
