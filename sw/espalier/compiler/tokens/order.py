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


def schedule(items: list[Item], running: Item | None = None) -> list[Item]:
    """The items in an order that keeps every dependency.

    An item may issue when all that it depends on has completed; the next one is that which may
    issue first, products before all others. `running` is the product that the engine still works
    on.
    """
    before = [{i for i in range(j) if must_follow(item, items[i])} for j, item in enumerate(items)]
    busy = 0 if running is None else running.busy
    earliest = [
        busy + running.latency if running is not None and must_follow(item, running) else 0
        for item in items
    ]
    finished: dict[int, int] = {}
    free = {"engine": busy}
    result: list[Item] = []
    now = 0
    waiting = list(range(len(items)))
    while waiting:
        times = {
            j: max([earliest[j], *(finished[i] for i in before[j])])
            for j in waiting
            if before[j] <= finished.keys()
        }
        chosen = min(times, key=lambda j: (max(times[j], now), items[j].unit != "engine", j))
        item = items[chosen]
        now = max(now, times[chosen]) + ISSUE_CYCLES * len(item.nodes)
        free[item.unit] = max(now, free.get(item.unit, 0)) + item.busy
        finished[chosen] = free[item.unit] + item.latency
        waiting.remove(chosen)
        result.append(item)
    return result
