"""Operations without weights: loading a vector from DDR, and one elementwise pass over a vector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..spec.config import ITEM_BYTES, Config
from ..spec.isa import Function, Scale, Source
from ..spec.memory import Memory
from ..spec.numerics import FUNCTIONS
from .allocate import Chip, Parameters
from .lowering import Sinks, Site, Unit
from .products import SlotRing
from .vectors import Region, Section


@dataclass(eq=False)
class LoadUnit(Unit):
    """Bring `output` from its section of a buffer: columns as they are, or values and from there
    into columns.

    `at_end` asks for the last step's, after the loop.
    """

    section: Section
    at_end: bool = False
    sinks: Sinks = field(init=False)

    def sections(self) -> list[Section]:
        return [self.section, *self.output.stores]

    def demand(self, config: Config) -> None:
        if not self.output.native:
            self.output.need_memory()

    def plan(self, chip: Chip, ring: SlotRing) -> None:
        self.sinks = Sinks.plan(self, chip.config)

    def write(self, site: Site) -> None:
        vector, config = self.output, site.config
        if vector.native:
            for region in vector.columns.values():
                self.write_part(site, region, 0, region.words)
            return
        items = config.chunks(vector.elements) * config.vector_lanes // 4
        where = self._where(site, last=True)
        site.assembly.load_buffer(Memory.VECTOR, vector.address, items, **where)
        self.sinks.copies(site, stores_left=True)

    def write_part(self, site: Site, region: Region, first: int, end: int) -> None:
        """Load the columns of the region's words first..end."""
        groups, arrays = -(-self.output.elements // site.config.group), site.config.arrays
        count = min(end * arrays, groups) - first * arrays
        where = self._where(site, last=end == region.words)
        where["offset"] += first * arrays * ITEM_BYTES
        site.assembly.load_buffer(Memory.ACTIVATIONS, region.address + first, count, **where)

    def _where(self, site: Site, *, last: bool) -> dict[str, Any]:
        """The DDR address; the last load of a step moves on to the next one."""
        buffer, cursors = self.section.buffer, site.cursors
        where = {"offset": self.section.offset, "section": self.section.name}
        if self.at_end:
            return {**where, "register": buffer.reverse}
        register = cursors.registers.get(buffer, buffer.register)
        increment = cursors.stride(buffer) if last and not buffer.own else 0
        return {**where, "register": register, "increment": increment}


@dataclass(eq=False)
class PassUnit(Unit):
    """output = function(input in units of `scale`): relu, sigmoid, tanh, or a change of scale
    alone."""

    function: str
    scale: float
    change: Parameters | None = field(default=None, init=False)
    sinks: Sinks = field(init=False)
    code: Function = field(default=Function.NONE, init=False)

    def demand(self, config: Config) -> None:
        self.inputs[0].vector.need_memory()

    def plan(self, chip: Chip, ring: SlotRing) -> None:
        source = self.inputs[0].vector
        if source.scale != self.scale:
            self.change = self.rescale(source.scale / self.scale, source.elements, chip.config)
        if self.function in FUNCTIONS:
            self.code = chip.table(self.function)
        elif self.function == "relu":
            self.code = Function.RELU
        self.sinks = Sinks.plan(self, chip.config)

    def write(self, site: Site) -> None:
        source = self.inputs[0].vector
        site.schedule.need(source)
        scale = (
            {} if self.change is None else {"scale": Scale.ROWS, "parameters": self.change.address}
        )
        site.assembly.vector(
            count=site.config.chunks(source.elements),
            source=Source.OPERAND,
            operand0=source.address,
            **scale,
            function=self.code,
            **self.sinks.fused(site),
            section=self.sinks.section(),
        )
        self.sinks.copies(site, columns_left=False)
