"""The order of products and drains within a step.

Products of a task run while the task before it is drained: `drain` holds a task's VECTORs back
until the next task's products are issued, because the sequencer issues in order and a VECTOR that
waits for its products would hold up all behind it. Held-back VECTORs go first where the next
product needs their slots or the columns that they write. A GRU step so becomes

    r products · z products · r gate · n_h products · z gate · n_x products · u = n_h·r · h'

and the sums of one half of the slots are drained while the other half accumulates. The waits follow
from what each instruction touches (`hazards`).

Columns of the next step are loaded as soon as their last product is through, in parts: the first
while the others are still multiplied. So the next step's products of x run under the last gate and
hide it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .emit import Assembly
from .place import Streamed
from .products import Product, Task
from .vectors import Vector

BEHIND = 2
"""Products issued before a held-back VECTOR: as many as a wait lets be outstanding."""
Prefetch = Mapping[Product, Sequence[Callable[[], None]]]
"""Loads for the next step, by the last product that needs what they overwrite."""


@dataclass(frozen=True, eq=False)
class Drain:
    """VECTORs held back: the tasks whose slots they empty, the vectors that they make."""

    tasks: Sequence[Task]
    makes: tuple[Vector, ...]
    write: Callable[[], None]


class Schedule:
    """Writes products and held-back VECTORs into an assembly."""

    def __init__(
        self, assembly: Assembly, stream: Streamed | None = None, prefetch: Prefetch | None = None
    ):
        self.assembly, self._stream, self._prefetch = assembly, stream, prefetch or {}
        self._held: deque[Drain] = deque()
        self._due: list[Callable[[], None]] = []

    def task(self, task: Task) -> None:
        """All products of a task, with the drains between its segments."""
        config = self.assembly.config
        for number, segment in enumerate(task.segments):
            for issued, product in enumerate(segment):
                if issued == BEHIND:
                    self.write_held()
                self._make_room(task, product)
                self._product(product)
            if number < len(task.segments) - 1:
                self.assembly.vector(**task.drain(config), **task.sum_fields(number))

    def drain(
        self, tasks: Sequence[Task], write: Callable[[], None], makes: tuple[Vector, ...] = ()
    ) -> None:
        """VECTORs that empty the tasks' slots, to be written behind the next task's products."""
        self.write_held()
        self._held.append(Drain(tasks, makes, write))

    def after(self, write: Callable[[], None], makes: tuple[Vector, ...]) -> None:
        """VECTORs that follow what is held back."""
        self._held.append(Drain((), makes, write))

    def need(self, vector: Vector) -> None:
        """Write what makes `vector`."""
        while any(vector in drain.makes for drain in self._held):
            self._release()

    def write_held(self) -> None:
        """Write what is held back, before loads for the next step."""
        while self._held:
            self._held.popleft().write()

    def finish(self) -> None:
        """Write all that is held back."""
        self._load()
        while self._held:
            self._release()

    def _make_room(self, task: Task, product: Product) -> None:
        first, end = task.slots
        while any(t.slots[0] < end and first < t.slots[1] for d in self._held for t in d.tasks):
            self._release()
        self.need(product.feed.vector)

    def _product(self, product: Product) -> None:
        feed = product.feed
        if self._stream is not None:
            self._stream.before(self.assembly, product)
        self.assembly.product(
            mode=product.mode,
            groups=product.packed.groups,
            activations=feed.region.address + product.first_group,
            last=feed.last.address + product.first_group if feed.last else 0,
            threshold=feed.threshold,
            descriptors=product.descriptors,
            weights=product.weights,
            slots=product.packed.slots,
        )
        self._due.extend(self._prefetch.get(product, ()))

    def _release(self) -> None:
        self._load()
        self._held.popleft().write()

    def _load(self) -> None:
        """The next step's columns, before VECTORs that wait for the same products anyway."""
        for load in self._due:
            load()
        self._due = []
