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

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..parameters import GruCellParameters, Matrix, Rows
from ..spec.config import SLOTS, Config
from ..spec.isa import Combine, Source, Sums
from ..spec.memory import Memory
from ..spec.numerics import GATE_SCALE
from .allocate import Chip, Parameters
from .lowering import Sinks, Site, Unit
from .packing import least_words
from .place import cut_tiles
from .products import Feed, SlotRing, Task, best_blocks, commit_last, plan_task, row_blocks
from .vectors import Region, Section

if TYPE_CHECKING:
    from .lower_stream import InputSums

GATES = ("r", "z", "n_h", "n_x")
"""Order of a step's tasks."""


@dataclass(eq=False)
class CellUnit(Unit):
    """A GRU cell; `output` is its state h."""

    cell: GruCellParameters
    gate_rows: dict[str, Parameters] = field(default_factory=dict, init=False)
    sinks: Sinks = field(init=False)
    blocks: list[slice] = field(default_factory=list, init=False)
    delta: bool = field(default=False, init=False)
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
        return all(piece.vector.native for piece in self.inputs)

    @property
    def gates(self) -> tuple[str, ...]:
        """The step's tasks."""
        return GATES if self.source is None else GATES[:-1]

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
            task.sums = self._sums_of(gate, block)
            task.running, task.loaded = self.delta, self.source is not None and gate in ("r", "z")

    def _sums_of(self, gate: str, block: slice) -> int:
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
        if self.source is not None:
            self._load_sums(site, self.source)
        tasks = iter(self.tasks)
        for rows in self.blocks:
            for gate in self.gates:
                task = next(tasks)
                site.schedule.task(task)
                makes = (self.output,) if gate == "n_x" else ()
                site.schedule.drain(task, self._drain(site, gate, rows, task), makes)
            if self.source is not None:
                site.schedule.after(self._from_sums(site, rows), (self.output,))
        if len(self.blocks) > 1:
            site.schedule.after(lambda: self.sinks.copies(site, whole=False), (self.output,))

    def _load_sums(self, site: Site, source: InputSums) -> None:
        """This step's W_ih·x of r, z and n_x."""
        items = site.config.chunks(self.hidden) * site.config.vector_lanes // 2
        for number, gate in enumerate(("r", "z", "n_x")):
            site.assembly.load_buffer(
                Memory.SUMS,
                self._sums_of(gate, self.blocks[0]),
                items,
                site.cursors.registers[source.section.buffer],
                offset=source.section.offset + number * source.gate_bytes,
                section=source.section.name,
            )

    def _from_sums(self, site: Site, rows: slice) -> Callable[[], None]:
        first = rows.start // site.config.vector_lanes
        fields = {
            "count": site.config.chunks(rows.stop - rows.start),
            "source": Source.ZERO,
            "sums": Sums.ADD,
            "sum_address": self._sums_of("n_x", rows),
            "scale": 1,
            "parameters": self.gate_rows["n_x"].address + first,
        }
        return lambda: self._state(site, fields, first)

    def _drain(self, site: Site, gate: str, rows: slice, task: Task) -> Callable[[], None]:
        first = rows.start // site.config.vector_lanes
        fields = {
            **task.drain(site.config),
            **task.sum_fields(len(task.segments) - 1),
            "scale": 1,
            "parameters": self.gate_rows[gate].address + first,
        }
        if gate == "n_x":
            return lambda: self._state(site, fields, first)
        return lambda: site.assembly.vector(**fields, **self._gate(site, gate))

    def _gate(self, site: Site, gate: str) -> dict[str, Any]:
        reset = site.temporary
        update = reset + self.temporary_chunks // 2
        to = {"write_vector": 1, "vector_address": update if gate == "z" else reset}
        if gate == "n_h":
            return {**to, "combine": Combine.MULTIPLY, "operand1": reset}
        return {**to, "function": site.chip.table("sigmoid")}

    def _state(self, site: Site, fields: dict[str, int], first: int) -> None:
        whole = len(self.blocks) == 1
        here = self.output.address + first
        to = self.sinks.fused(site) if whole else {"write_vector": 1, "vector_address": here}
        site.assembly.vector(
            **fields,
            combine=Combine.ADD,
            operand1=site.temporary,
            function=site.chip.table("tanh"),
            interpolate=1,
            operand0=here,
            operand2=site.temporary + self.temporary_chunks // 2,
            **to,
            section=self.sinks.section() if whole else "",
        )
        if whole:
            self.sinks.copies(site)


def row_slice(rows: Rows, first: int, end: int) -> Rows:
    part = slice(first, end)
    return Rows(multiplier=rows.multiplier[part], shift=rows.shift[part], bias=rows.bias[part])


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
            {} if self.change is None else {"scale": 1, "parameters": self.change.address}
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
