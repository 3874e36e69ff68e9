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


def schedule(items: list[Item]) -> list[Item]:
    """The items in an order that keeps every dependency."""
    before = [
        {i for i in range(j) if must_follow(item, items[i])} for j, item in enumerate(items)
    ]
    finished: dict[int, int] = {}
    free: dict[str, int] = {}
    result: list[Item] = []
    now = 0
    waiting = list(range(len(items)))
    while waiting:
        ready = [j for j in waiting if all(i in finished for i in before[j])]
        starts = {
            j: max([now, free.get(items[j].unit, 0), *(finished[i] for i in before[j])])
            for j in ready
        }
        chosen = min(ready, key=lambda j: (starts[j], j))
        item, start = items[chosen], starts[chosen]
        depends = max((finished[i] for i in before[chosen]), default=0)
        now = max(now, depends) + 2 * len(item.nodes)
        free[item.unit] = start + item.busy
        finished[chosen] = start + item.busy + item.latency
        waiting.remove(chosen)
        result.append(item)
    return result
