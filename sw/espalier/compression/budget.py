"""Density and bits for every matrix under a budget, from what each does to the loss.

Losses are taken to add up. Of each matrix' choices only those on the lower convex hull of loss over
entries can be part of a best mix; from the richest mix on, the step that costs least loss for each
entry saved is next (Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers,
1988). The budget is judged by any cost of a mix: stored entries, or cycles of the compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..errors import RecipeError
from ..spec.config import DE1_SOC
from .sensitivity import FLOAT, Sensitivity, by_matrix

Mix = dict[str, Sensitivity]
Layers = dict[str, dict[str, Any]]
Cost = Callable[[Layers], float]


def choose(
    rows: Sequence[Sensitivity], budget: float | None = None, cost: Cost | None = None
) -> Layers:
    """`Recipe.layers` of the mix with the least loss whose cost is within the budget.

    Arguments
    ---------
    budget: default the entries that DE1_SOC holds on the chip.
    cost: of a mix as `Recipe.layers`; default its stored entries. It should grow with entries, and
        is called a few times (a bisection). For cycles of the real machine:

            def cycles(layers):
                small = compress(model, Recipe(layers=layers), calibration=x)
                return espalier.estimate(espalier.compile(small, x), steps=100).cycles

    Raises RecipeError when even the leanest mix costs too much.
    """
    budget = DE1_SOC.total_lanes * DE1_SOC.weight_depth if budget is None else budget
    mixes = path_of_mixes(rows)
    low, high = 0, len(mixes) - 1
    if (least := _cost(mixes[high], cost)) > budget:
        raise RecipeError(
            f"budget must be at least {least:.6g}, the cost of the leanest mix, not {budget:.6g}: "
            "measure lower densities"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _cost(mixes[middle], cost) <= budget else (middle + 1, high)
    return as_layers(mixes[low])


def _cost(mix: Mix, cost: Cost | None) -> float:
    return sum(row.entries for row in mix.values()) if cost is None else cost(as_layers(mix))


def as_layers(mix: Mix) -> Layers:
    """A mix as the recipe wants it."""
    return {
        name: {"density": row.density} | ({"weight_bits": row.bits} if row.bits != FLOAT else {})
        for name, row in mix.items()
    }


def path_of_mixes(rows: Sequence[Sensitivity]) -> list[Mix]:
    """Mixes from the richest to the leanest, each by one step of one matrix."""
    hulls = {name: hull(mine) for name, mine in by_matrix(rows)}
    mix = {name: choices[0] for name, choices in hulls.items()}
    steps = [
        (slope(before, after), index, name, after)
        for name, choices in hulls.items()
        for index, (before, after) in enumerate(pairwise(choices))
    ]
    mixes = [dict(mix)]
    for _, _, name, after in sorted(steps, key=lambda step: step[:2]):
        mix[name] = after
        mixes.append(dict(mix))
    return mixes


def slope(before: Sensitivity, after: Sensitivity) -> float:
    """Loss for each entry saved."""
    return (after.loss - before.loss) / (before.entries - after.entries)


def hull(rows: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The lower convex hull of loss over entries, from the least loss to the fewest entries."""
    result: list[Sensitivity] = []
    for row in sorted(rows, key=lambda row: (-row.entries, row.loss)):
        if result and row.entries == result[-1].entries:
            continue
        while result and row.loss <= result[-1].loss:
            result.pop()  # fewer entries at no more loss
        while len(result) > 1 and slope(result[-1], row) < slope(result[-2], result[-1]):
            result.pop()
        result.append(row)
    return result


def equal_density(rows: Sequence[Sensitivity], bits: int) -> list[Mapping[str, Any]]:
    """For comparison: the sum of losses where all matrices share a density, at one bit width."""
    mine = [row for row in rows if row.bits == bits]
    result = []
    for density in dict.fromkeys(row.density for row in mine):
        same = [row for row in mine if row.density == density]
        entries, loss = sum(row.entries for row in same), sum(row.loss for row in same)
        result.append({"density": density, "entries": entries, "loss": loss})
    return result
