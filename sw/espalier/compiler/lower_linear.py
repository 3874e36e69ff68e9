"""Linear layers: products of row blocks, each drained, requantized and passed on. y16 =
sat16(scale_sum(W·x8, rows))."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..parameters import LinearParameters
from ..spec.config import SLOTS, Config
from ..spec.isa import Scale
from .allocate import Chip, Parameters
from .lowering import Sinks, Site, Unit
from .packing import least_words
from .place import cut_tiles
from .products import Feed, SlotRing, Task, best_blocks, plan_task, row_blocks


@dataclass(eq=False)
class LinearUnit(Unit):
    """One linear layer."""

    parameters: LinearParameters
    scales: Parameters = field(init=False)
    sinks: Sinks = field(init=False)
    blocks: list[slice] = field(default_factory=list, init=False)

    def least_words(self, config: Config) -> int:
        return least_words([self.parameters.matrix], config)

    def demand(self, config: Config) -> None:
        for piece in self.inputs:
            piece.vector.region(self.parameters.input_scale / 256, config)

    def plan(self, chip: Chip, ring: SlotRing) -> None:
        config, matrix = chip.config, self.parameters.matrix
        feeds = [Feed.of(p, self.parameters.input_scale / 256, config) for p in self.inputs]
        parts = [(feed, matrix) for feed in feeds]

        def tasks(blocks: list[slice]) -> list[Task]:
            return [
                plan_task(self.name, parts, rows, ring, config, level=self.streamed)
                for rows in blocks
            ]

        rows = matrix.weight.shape[0]
        if self.streamed:
            self.blocks = row_blocks(rows, matrix.planes, SLOTS, config)
            self.tasks = tasks(self.blocks)
            cut_tiles(self.tasks, config)
        else:
            self.blocks, self.tasks = best_blocks(rows, matrix.planes, tasks, 1, config)
        self.scales = self.rows(self.parameters.rows, config)
        self.sinks = Sinks.plan(self, config, blocks=len(self.blocks))
        if any(len(task.segments) > 1 for task in self.tasks):
            self.temporary_sums = config.chunks(self.blocks[0].stop)

    def write(self, site: Site) -> None:
        whole = len(self.tasks) == 1
        for rows, task in zip(self.blocks, self.tasks, strict=True):
            site.schedule.task(task)
            site.schedule.drain([task], self._drain(site, rows, task), (self.output,))
        if not whole:
            site.schedule.after(lambda: self.sinks.copies(site, stores_left=True), (self.output,))

    def _drain(self, site: Site, rows: slice, task: Task) -> Callable[[], None]:
        first = rows.start // site.config.vector_lanes
        whole = len(self.tasks) == 1

        def write() -> None:
            to = {"write_vector": 1, "vector_address": self.output.address + first}
            site.assembly.vector(
                **task.drain(site.config),
                **task.sum_fields(len(task.segments) - 1),
                scale=Scale.ROWS,
                parameters=self.scales.address + first,
                **(self.sinks.fused(site) if whole else to),
                section=self.sinks.section() if whole else "",
            )
            if whole:
                self.sinks.copies(site, columns_left=False)

        return write
