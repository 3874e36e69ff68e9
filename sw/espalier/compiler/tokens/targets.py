"""Where the results of a pass go in DDR: records, the cache, output rows."""

from __future__ import annotations

from dataclasses import dataclass

from ...spec.config import ITEM_BYTES
from ...spec.isa import Store
from ...spec.tokens import Register
from ...tokens.graph import Tensor
from .context import Context, Use
from .placement import stored_bytes
from .registers import CURSOR, PLACE
from .tokenpass import TokenPass


@dataclass(frozen=True)
class Target:
    """Where a VECTOR stores: register + offset, for the chunks from `first` on; `section` names
    the place for the waits."""

    kind: Store
    register: int
    offset: int
    section: str


@dataclass(eq=False)
class Targets:
    """The places of one pass. `strides` collects the distances of two tokens by cursor register."""

    token_pass: TokenPass
    strides: dict[int, int]

    @property
    def context(self) -> Context:
        return self.token_pass.context

    def of(self, tensor: Tensor, first: int, end: int) -> list[Target]:
        """Where elements first..end (of tile 0) go in DDR."""
        context, plan, home = self.context, self.token_pass, self.context.home(tensor)
        targets = []
        if plan.stored(tensor, Use.CACHE):
            layout = context.layout_of(home)
            inside = first // context.config.group * ITEM_BYTES
            offset = 0 if plan.tiles > 1 else context.regions[home] + inside
            self.strides[PLACE] = layout.token_bytes
            targets.append(Target(Store.COLUMNS, PLACE, offset, "cache"))
        for use, kind in ((Use.COLUMNS, Store.COLUMNS), (Use.VALUES, Store.VALUES)):
            if not plan.stored(tensor, use):
                continue
            elements = context.shape(tensor).elements
            columns = use is Use.COLUMNS
            section = context.record.section(home, elements, columns=columns)
            inside = first * (ITEM_BYTES // context.config.group if columns else 2)
            if plan.tiles > 1:
                self.strides[PLACE] = context.stride
                targets.append(Target(kind, PLACE, 0, section.name))
            else:
                targets.append(Target(kind, CURSOR, section.offset + inside, section.name))
        if plan.final is tensor:
            targets.append(self.output(tensor, first))
        return targets

    def output(self, tensor: Tensor, first: int) -> Target:
        elements = self.context.shape(tensor).elements
        size = stored_bytes(self.context.config, elements, columns=False)
        self.strides[int(Register.OUTPUT)] = size
        return Target(Store.VALUES, int(Register.OUTPUT), 2 * first, "")
