"""One layer and direction of a GRU (`parameters.GruCellParameters` has the equations).

Per step and block of units:

    r = sigmoid(W_ir x + W_hr h)   drain, scale, table                  -> temporary
    z = sigmoid(W_iz x + W_hz h)   drain, scale, table                  -> temporary
    u = (W_hn h)·r                 drain, scale, multiply by r          -> temporary (r's place)
    h' = n + z·(h - n)             drain W_in x, scale, add u, tanh, interpolate -> h, columns, DDR

Several blocks leave the new state in vector memory and copy it to the columns after the last
product of the step. Where columns are taken as differences the running sums of all four products
stay in sum memory, and of a step's tasks only the last one that visits a column makes it the
last-sent value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..parameters import GruCellParameters, Matrix, Rows
from ..spec.config import SLOTS, Config
from ..spec.numerics import GATE_SCALE
from .allocate import Chip, Parameters
from .gates import GATES, Gates
from .lowering import Sinks, Site, Unit
from .packing import least_words, plane_height
from .place import cut_tiles
from .products import Feed, SlotRing, Task, best_blocks, commit_last, plan_task, row_blocks
from .vectors import Region, Section

if TYPE_CHECKING:
    from .lower_stream import InputSums

LATE_FROM = 24
"""Chunks of a gate from which drains stop the lanes longer than a VECTOR's latency."""


@dataclass(eq=False)
class CellUnit(Unit):
    """A GRU cell; `output` is its state h."""

    cell: GruCellParameters
    gate_rows: dict[str, Parameters] = field(default_factory=dict, init=False)
    sinks: Sinks = field(init=False)
    blocks: list[slice] = field(default_factory=list, init=False)
    delta: bool = field(default=False, init=False)
    late: bool = field(default=False, init=False)
    source: InputSums | None = field(default=None, init=False)
    """Where W_ih·x comes from when the input weights are streamed."""
    sums: int = field(default=-1, init=False)
    sum_chunks: int = field(default=0, init=False)
    vector_lanes: int = field(default=0, init=False)

    @property
    def hidden(self) -> int:
        return self.cell.hidden_size

    @property
    def thresholds(self) -> bool:
        return bool(self.cell.input_threshold or self.cell.hidden_threshold)

    @property
    def prefetched(self) -> bool:
        """Whether x is there before the state: its products come first and hide the state's way to
        the columns."""
        return not self.late and all(piece.vector.native for piece in self.inputs)

    @property
    def gates(self) -> tuple[str, ...]:
        """The step's tasks in their order."""
        if self.source is not None:
            return GATES[:-1]
        return ("r", "z", "n_x", "n_h") if self.late else GATES

    def least_words(self, config: Config) -> int:
        return least_words([self.cell.weight_ih, self.cell.weight_hh], config)

    def sections(self) -> list[Section]:
        return [*self.output.stores, *([self.source.section] if self.source else [])]

    def demand(self, config: Config) -> None:
        for piece in self.inputs:
            piece.vector.region(self.cell.input_scale / 256, config)
        self.output.region(GATE_SCALE, config)
        self.output.need_memory()

    def plan(self, chip: Chip, ring: SlotRing) -> None:
        config, cell = chip.config, self.cell
        x = [Feed.of(piece, cell.input_scale / 256, config) for piece in self.inputs]
        h = Feed.whole(self.output, GATE_SCALE, config)
        self.delta = self._wants_differences() and self._take_differences(chip, x, h)
        planes = max(cell.weight_ih.planes, cell.weight_hh.planes)

        self.late = self._wants_late(planes, config)
        if self.late:
            ring.position = 0
            for feed in x:
                feed.region.cuts = ()

        def tasks(blocks: list[slice]) -> list[Task]:
            return [
                self._task(gate, rows, x, h, ring, config) for rows in blocks for gate in self.gates
            ]

        if self.streamed:
            self.blocks = row_blocks(self.hidden, planes, SLOTS, config)
            self.tasks = tasks(self.blocks)
            cut_tiles(self.tasks, config)
        else:
            self.blocks, self.tasks = best_blocks(self.hidden, planes, tasks, len(GATES), config)
        commit_last(self.tasks)
        self.temporary_chunks = 2 * config.chunks(self.blocks[0].stop)
        self._ask_sums(chip)
        self._place_rows(chip)
        self.sinks = Sinks.plan(self, config, blocks=len(self.blocks))

    def _wants_late(self, planes: int, config: Config) -> bool:
        """Whether the step's last VECTORs wait for its last product (`gates`)."""
        fits = plane_height(self.hidden, config) * planes <= SLOTS // 2
        resident = not self.streamed and self.source is None
        return resident and fits and config.chunks(self.hidden) >= LATE_FROM

    def _wants_differences(self) -> bool:
        """Streamed weights are read whatever the columns are, so only a threshold asks for
        differences."""
        return self.thresholds or (self.cell.delta and not self.streamed)

    def _take_differences(self, chip: Chip, x: list[Feed], h: Feed) -> bool:
        """Give the feeds last-sent values. Without thresholds plain columns give the same sums:
        they do when memory is full."""
        cell = self.cell
        feeds = [(feed, cell.input_threshold) for feed in x] + [(h, cell.hidden_threshold)]
        words = sum(feed.region.words for feed, _ in feeds)
        room = chip.sums.fits(len(GATES) * chip.config.chunks(self.hidden)) and chip.last.fits(
            words
        )
        if not room and not self.thresholds:
            return False
        for feed, threshold in feeds:
            address = chip.last.take(feed.region.words, self.name)
            feed.last = Region(feed.region.words, address)
            feed.threshold = threshold
        return True

    def _task(
        self, gate: str, rows: slice, x: list[Feed], h: Feed, ring: SlotRing, config: Config
    ) -> Task:
        number = min(GATES.index(gate), 2)
        shifted = slice(rows.start + number * self.hidden, rows.stop + number * self.hidden)
        from_x: list[tuple[Feed, Matrix]] = [(feed, self.cell.weight_ih) for feed in x]
        from_h = [(h, self.cell.weight_hh)]
        both = from_x + from_h if self.prefetched else from_h + from_x
        parts = {"n_h": from_h, "n_x": from_x}.get(gate, both)
        return plan_task(
            f"{self.name} {gate}",
            parts,
            shifted,
            ring,
            config,
            level=self.streamed,
            cut=gate in ("r", "n_x"),
        )

    def _ask_sums(self, chip: Chip) -> None:
        """Sum memory: running sums for good; within a step sums from the scratch, or one block's
        segments."""
        config, segmented = chip.config, any(len(task.segments) > 1 for task in self.tasks)
        rows = self.hidden if self.delta or self.source else self.blocks[0].stop
        self.sum_chunks, self.vector_lanes = config.chunks(rows), config.vector_lanes
        if self.delta:
            self.place_sums(chip.sums.take(len(GATES) * self.sum_chunks, self.name))
        elif self.source or segmented:
            self.temporary_sums = len(GATES if segmented else GATES[:-1]) * self.sum_chunks

    def place_sums(self, first: int) -> None:
        self.sums = first
        for number, task in enumerate(self.tasks):
            gate, block = (
                self.gates[number % len(self.gates)],
                self.blocks[number // len(self.gates)],
            )
            task.sums = self.sums_of(gate, block)
            task.running, task.loaded = self.delta, self.source is not None and gate in ("r", "z")

    def sums_of(self, gate: str, block: slice) -> int:
        """First chunk of a gate's sums; n_h comes last, because it may have none."""
        chunk = block.start // self.vector_lanes if self.delta or self.source else 0
        return self.sums + ("r", "z", "n_x", "n_h").index(gate) * self.sum_chunks + chunk

    def _place_rows(self, chip: Chip) -> None:
        cell = self.cell
        self.gate_rows = {
            "r": self.rows(row_slice(cell.gates, 0, self.hidden), chip.config),
            "z": self.rows(row_slice(cell.gates, self.hidden, 2 * self.hidden), chip.config),
            "n_h": self.rows(cell.new_hidden, chip.config),
            "n_x": self.rows(cell.new_input, chip.config),
        }
        for name in ("sigmoid", "tanh"):
            chip.table(name)

    def write(self, site: Site) -> None:
        gates = Gates(self, site)
        if self.source is not None:
            gates.load_sums(self.source)
        tasks = iter(self.tasks)
        for rows in self.blocks:
            block = {gate: next(tasks) for gate in self.gates}
            if self.late:
                gates.write_late(block)
            else:
                gates.write_block(block, rows)
        if len(self.blocks) > 1:
            site.schedule.after(lambda: self.sinks.copies(site, stores_left=True), (self.output,))


def row_slice(rows: Rows, first: int, end: int) -> Rows:
    part = slice(first, end)
    return Rows(multiplier=rows.multiplier[part], shift=rows.shift[part], bias=rows.bias[part])
