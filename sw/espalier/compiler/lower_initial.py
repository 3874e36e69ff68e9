"""A given state instead of zeros, before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..spec.config import Config
from ..spec.isa import Scale, Source
from ..spec.numerics import GATE_SCALE
from .allocate import Chip, Parameters
from .lowering import Site, Unit
from .products import SlotRing


@dataclass(eq=False)
class InitialUnit(Unit):
    """A given state instead of zeros: `output` (the state of a cell) is the first input."""

    change: Parameters | None = field(default=None, init=False)

    def demand(self, config: Config) -> None:
        self.inputs[0].vector.need_memory()

    def plan(self, chip: Chip, ring: SlotRing) -> None:
        scale = self.inputs[0].vector.scale
        if scale != GATE_SCALE:
            self.change = self.rescale(scale / GATE_SCALE, self.output.elements, chip.config)

    def write(self, site: Site) -> None:
        site.schedule.need(self.inputs[0].vector)
        scale: dict[str, Any] = (
            {} if self.change is None else {"scale": Scale.ROWS, "parameters": self.change.address}
        )
        site.assembly.vector(
            count=site.config.chunks(self.output.elements),
            source=Source.OPERAND,
            operand0=self.inputs[0].vector.address,
            **scale,
            write_vector=1,
            vector_address=self.output.address,
            write_columns=1,
            column_address=self.output.columns[GATE_SCALE].address,
        )
