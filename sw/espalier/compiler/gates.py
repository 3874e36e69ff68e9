"""The VECTORs of a GRU step: gates, u and the new state, and when they are written.

A drain takes a cycle from the lanes of all arrays for every slot. Where gates are long the step's
last two VECTORs, u and h', are `late`: they follow the last product, in parts that overlap, so that
they stop no lanes. Short gates are drained
under the next products: there the latency of a VECTOR is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

from ..spec.config import Config
from ..spec.isa import Combine, Finish, Scale, Source, Sums
from ..spec.memory import Memory
from .lowering import Site
from .products import Task

if TYPE_CHECKING:
    from .lower_gru import CellUnit
    from .lower_stream import InputSums

GATES = ("r", "z", "n_h", "n_x")
"""Order of a step's tasks, unless the last VECTORs are late."""
PARTS = 3
"""Parts of a late VECTOR: as many as a wait can tell apart."""
CHUNK_ADDRESSES = (
    "drain",
    "sum_address",
    "parameters",
    "operand0",
    "operand1",
    "operand2",
    "vector_address",
)


@dataclass
class Gates:
    """Writes the VECTORs of `cell` in one step."""

    cell: CellUnit
    site: Site

    @property
    def reset(self) -> int:
        """Chunk of the temporary memory that holds r, then u."""
        return self.site.temporary

    @property
    def update(self) -> int:
        """Chunk of z."""
        return self.site.temporary + self.cell.temporary_chunks // 2

    def write_block(self, tasks: dict[str, Task], rows: slice) -> None:
        """The tasks of one block of units, each drained under the next one."""
        schedule, makes = self.site.schedule, (self.cell.output,)
        for gate, task in tasks.items():
            schedule.task(task)
            last = gate == "n_x"
            schedule.drain([task], self._writer(gate, task, rows), makes if last else ())
        if "n_x" not in tasks:
            schedule.after(self._from_sums(rows), makes)

    def write_late(self, tasks: dict[str, Task]) -> None:
        """r and z are drained under the next products, n_h and n_x after the last one."""
        schedule = self.site.schedule
        for gate, task in tasks.items():
            schedule.task(task)
            if gate in ("r", "z"):
                schedule.drain([task], self._writer(gate, task, self.cell.blocks[0]))
            else:
                schedule.write_held()
        late = [tasks["n_x"], tasks["n_h"]]
        schedule.drain(late, lambda: self._late(*late), (self.cell.output,))

    def _late(self, n_x: Task, n_h: Task) -> None:
        assembly, sinks = self.site.assembly, self.cell.sinks
        u = {**self._drained("n_h", n_h, 0), **self._gate("n_h")}
        state = {**self._drained("n_x", n_x, 0), **self._state(0)}
        state |= sinks.fused(self.site, store=False)
        for fields in (u, state):
            for part in parts(fields, self.site.config):
                assembly.vector(**part)
        sinks.copies(self.site, columns_left=False, stores_left=True)

    def _writer(self, gate: str, task: Task, rows: slice) -> Callable[[], None]:
        first = rows.start // self.site.config.vector_lanes
        fields = self._drained(gate, task, first)
        if gate == "n_x":
            return lambda: self._write_state(fields, first)
        return lambda: self.site.assembly.vector(**fields, **self._gate(gate))

    def _drained(self, gate: str, task: Task, first: int) -> dict[str, Any]:
        return {
            **task.drain(self.site.config),
            **task.sum_fields(len(task.segments) - 1),
            "scale": Scale.ROWS,
            "parameters": self.cell.gate_rows[gate].address + first,
        }

    def _gate(self, gate: str) -> dict[str, Any]:
        """What makes r, z or u of the scaled sum."""
        to = {"write_vector": 1, "vector_address": self.update if gate == "z" else self.reset}
        if gate == "n_h":
            return {**to, "combine": Combine.MULTIPLY, "operand1": self.reset}
        return {**to, "function": self.site.chip.table("sigmoid")}

    def _state(self, first: int) -> dict[str, Any]:
        """What makes h' of the scaled sum of x."""
        return {
            "combine": Combine.ADD,
            "operand1": self.reset,
            "function": self.site.chip.table("tanh"),
            "finish": Finish.INTERPOLATE,
            "operand0": self.cell.output.address + first,
            "operand2": self.update,
        }

    def _write_state(self, fields: dict[str, Any], first: int) -> None:
        """h' of a block, and of the only one everything that takes the state."""
        sinks, vector = self.cell.sinks, self.site.assembly.vector
        if len(self.cell.blocks) > 1:
            here = self.cell.output.address + first
            vector(**fields, **self._state(first), write_vector=1, vector_address=here)
            return
        vector(**fields, **self._state(first), **sinks.fused(self.site), section=sinks.section())
        sinks.copies(self.site, columns_left=False)

    def load_sums(self, source: InputSums) -> None:
        """This step's W_ih·x of r, z and n_x."""
        config = self.site.config
        items = config.chunks(self.cell.hidden) * config.vector_lanes // 2
        for number, gate in enumerate(("r", "z", "n_x")):
            self.site.assembly.load_buffer(
                Memory.SUMS,
                self.cell.sums_of(gate, self.cell.blocks[0]),
                items,
                self.site.cursors.registers[source.section.buffer],
                offset=source.section.offset + number * source.gate_bytes,
                section=source.section.name,
            )

    def _from_sums(self, rows: slice) -> Callable[[], None]:
        """The state where W_in·x was loaded as sums."""
        config = self.site.config
        first = rows.start // config.vector_lanes
        fields = {
            "count": config.chunks(rows.stop - rows.start),
            "source": Source.ZERO,
            "sums": Sums.ADD,
            "sum_address": self.cell.sums_of("n_x", rows),
            "scale": Scale.ROWS,
            "parameters": self.cell.gate_rows["n_x"].address + first,
        }
        return lambda: self._write_state(fields, first)


def parts(fields: dict[str, Any], config: Config) -> Iterator[dict[str, Any]]:
    """A VECTOR in `PARTS` parts, each of whole words of columns."""
    unit = config.arrays // gcd(config.arrays, config.chunk_groups)
    count = fields["count"]
    size = -(-count // (PARTS * unit)) * unit
    for first in range(0, count, size):
        part = {**fields, "count": min(size, count - first)}
        for name in CHUNK_ADDRESSES:
            if name in part:
                part[name] += first
        if "column_address" in part:
            part["column_address"] += first * config.chunk_groups // config.arrays
        yield part
