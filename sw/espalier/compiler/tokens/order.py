"""The order in which a loop body's instructions are issued: the earliest start first.

Instructions issue in order, so one that has to wait holds up all behind it. Whatever the order, the
waits keep the result right (`hazards`); a good one keeps engine, vector unit and loader busy.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..emit import Node
from ..hazards import Access, overlap

VECTOR_LATENCY = 33
SCALAR_LATENCY = 120
LOAD_LATENCY = 50
ISSUE_CYCLES = 2


@dataclass(eq=False)
class Item:
    """Instructions that stay together: one for a unit, and the SETs that it needs before it.

    `busy` is how long its unit is taken, `latency` what passes after that before it has completed.
    """

    nodes: list[Node]
    busy: int
    latency: int = 0

    @property
    def accesses(self) -> tuple[Access, ...]:
        return self.nodes[-1].accesses

    @property
    def unit(self) -> str:
        return self.accesses[0].unit


def must_follow(later: Item, earlier: Item) -> bool:
    """Whether the two touch the same thing, and one of them changes it."""
    for new in later.accesses:
        for old in earlier.accesses:
            touched = (*old.reads, *old.writes)
            if overlap(new.reads, old.writes) or overlap(new.writes, touched):
                return True
    return False


@dataclass
class Order:
    """Items in the order of issue; `left` are those still under way when the last one has issued,
    with the cycles that each needs from then on, and `free` the same of the units."""

    items: list[Item]
    left: list[tuple[Item, float]]
    free: dict[str, float]


def schedule(items: list[Item], before: Order | None = None) -> Order:
    """The items in an order that keeps every dependency.

    An item may issue when all that it depends on has completed; the next one is that which may
    issue first, products before all others. `before` is what has been issued before them.
    """
    depends = [{i for i in range(j) if must_follow(item, items[i])} for j, item in enumerate(items)]
    earliest = [0.0] * len(items)
    free: dict[str, float] = {}
    if before is not None:
        free = dict(before.free)
        for j, item in enumerate(items):
            late = (time for other, time in before.left if must_follow(item, other))
            earliest[j] = max(late, default=0.0)
    finished: dict[int, float] = {}
    result: list[Item] = []
    now = 0.0
    waiting = list(range(len(items)))
    while waiting:
        times = {
            j: max([earliest[j], *(finished[i] for i in depends[j])])
            for j in waiting
            if depends[j] <= finished.keys()
        }
        chosen = min(times, key=lambda j: (max(times[j], now), items[j].unit != "engine", j))
        item = items[chosen]
        now = max(now, times[chosen]) + ISSUE_CYCLES * len(item.nodes)
        free[item.unit] = max(now, free.get(item.unit, 0)) + item.busy
        finished[chosen] = free[item.unit] + item.latency
        waiting.remove(chosen)
        result.append(item)
    left = [(items[i], end - now) for i, end in finished.items() if end > now]
    return Order(result, left, {unit: end - now for unit, end in free.items() if end > now})
