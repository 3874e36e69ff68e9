"""A loop over pairs of tokens as a software pipeline: what a pair does late runs in later passes of
the loop, beside the next pairs.

A loop body is an order of items. Any end of it can be taken off and put in front, as what the pair
before left to do: the items then stand for tokens two further back, and the body is ordered anew.
The first passes finish tokens that never were, in the rows before the record's first one; behind
the loop the last pairs are finished. What is taken off is chosen by the performance model, on
a few passes of the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ...perf import Step, simulate
from ...perf.trace import store_beats
from ...spec.config import Config
from ...spec.isa import LAYOUTS, NO_WAIT, Instruction, Opcode, waits_for
from ...spec.memory import Memory, beats
from ...spec.tokens import AHEAD
from ..emit import Node
from ..hazards import Step as Hazard
from ..hazards import Waits
from .order import Item, schedule

PAIR = 2
ROUNDS = 3
"""Times that a body is ordered, each behind the one before."""
PASSES = 2
"""Passes of the loop before the measured ones, and measured."""

Variant = Callable[[int], list[Item]]
"""The items of a pair whose first token is so many before the cursors' (a number <= 0)."""


@dataclass
class Pipeline:
    """A loop body, and how to finish what it leaves to do.

    `order` are (item's number, how many tokens back); `items` makes them.
    """

    variant: Variant
    order: list[tuple[int, int]] = field(default_factory=list)

    @property
    def body(self) -> list[Item]:
        return self._items(self.order)

    @property
    def depth(self) -> int:
        """Pairs that are under way at once, besides the one that begins."""
        return max(-back // PAIR for _, back in self.order)

    def finish(self) -> list[list[Item]]:
        """What follows the loop: once for every pair that is not finished, oldest first."""
        rounds = []
        for late in range(1, self.depth + 1):
            left = [(i, back + (late - 1) * PAIR) for i, back in self.order if -back >= late * PAIR]
            rounds.append(self._items(left))
        return rounds

    def _items(self, order: list[tuple[int, int]]) -> list[Item]:
        made = {back: self.variant(back) for back in {back for _, back in order}}
        return [made[back][i] for i, back in order]

    def ordered(self) -> Pipeline:
        """The same items in a good order for a loop that goes round and round."""
        items = self.body
        order = None
        for _ in range(ROUNDS):
            order = schedule(items, order)
        return Pipeline(self.variant, [self.order[items.index(item)] for item in order.items])

    def rotated(self, count: int) -> Pipeline:
        """With the last `count` items put off to the next pass."""
        kept, late = self.order[:-count], self.order[-count:]
        return Pipeline(self.variant, [(i, back - PAIR) for i, back in late] + kept).ordered()


def pipeline(variant: Variant, config: Config, *, fixed: Callable[[Item], bool]) -> Pipeline:
    """The fastest loop found; `fixed` items are never put off."""
    variant = cache(variant)
    items = variant(0)
    best = Pipeline(variant, [(i, 0) for i in range(len(items))]).ordered()
    if all(item.unit != "engine" for item in items):
        return best
    cost = cycles(best.body, config)
    for _ in range(AHEAD // PAIR):
        body = best.body
        free = next((n for n, item in enumerate(reversed(body)) if fixed(item)), len(body) - 1)
        counts = [n for n in range(1, free + 1) if body[-n].unit == "vector"]
        found = [one for n in counts if (one := best.rotated(n)).depth <= AHEAD // PAIR]
        costs = [cycles(one.body, config) for one in found]
        if not costs or min(costs) >= cost:
            break
        cost, best = min(costs), found[int(np.argmin(costs))]
    return best


def cycles(body: list[Item], config: Config) -> float:
    """Modelled cycles of one pass of a loop that goes round and round."""
    nodes = [node for item in body for node in item.nodes]
    hazards = [
        Hazard(Opcode.LOOP, (), len(nodes) + 1),
        *(Hazard(node.opcode, node.accesses) for node in nodes),
        Hazard(Opcode.END),
        Hazard(Opcode.HALT),
    ]
    waits = Waits(hazards, [0]).waits[1:]
    steps = []
    for item in body:
        for node in item.nodes:
            instruction = _instruction(node.opcode, node.fields, waits[len(steps)])
            steps.append(Step(0, instruction, _work(node, item, config)))
    halt = Step(0, _instruction(Opcode.HALT, {}, {}), None)
    few, more = (
        simulate(config, [*steps * passes, halt]).cycles for passes in (PASSES, 2 * PASSES)
    )
    return (more - few) / PASSES


def _instruction(opcode: Opcode, fields: dict[str, int], waits: dict[str, int]) -> Instruction:
    declared = dict.fromkeys((one.name for one in LAYOUTS[opcode].fields[1:]), 0)
    free = {f"wait_{unit}": NO_WAIT for unit in waits_for(opcode)}
    given = {f"wait_{unit}": wait for unit, wait in waits.items()}
    return Instruction(opcode, {**declared, **free, **fields, **given})


def _work(node: Node, item: Item, config: Config) -> np.ndarray | int | None:
    """What `perf.Step` wants to know; a product's words are those of the fullest array."""
    f = node.fields
    if node.opcode is Opcode.PRODUCT:
        return np.tile([f["groups"] * config.group, item.busy], (config.arrays, 1))
    if node.opcode is Opcode.LOAD:
        return beats(config, Memory(f["memory"]), f["count"])
    if node.opcode is not Opcode.VECTOR:
        return None
    return np.array([f["count"], store_beats(config, _instruction(node.opcode, f, {}))])
