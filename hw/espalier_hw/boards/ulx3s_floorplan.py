"""Where block RAMs lie on an ECP5-85F: arrays side by side along one row, the window in another.

A placer that chooses them freely deals an array's banks, which have to be near its lanes, over the
whole width of the chip, and draws the vector unit together until it cannot be routed. With them in
place everything else falls into place by itself: the vector unit between its arrays and the window,
lane by lane from the left to the right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ..vector_unit import LANES_PER_SUM_ITEM, LANES_PER_VECTOR_ITEM

SITES = 52
"""Block RAMs in each row of the chip."""
ARRAY_ROW, SUM_ROW, OPERAND_ROW, WINDOW_ROW = 22, 46, 70, 82
"""Source of rows and sites: Project Trellis' database of the LFE5U-85F."""
VECTOR_SITES = range(6, 46)
"""Of a row: the vector unit's block RAMs, its lanes beside them, are dealt to so many."""
BLOCK_RAM = "DP16KD"
ARRAYS = "fabric.accelerator.engine.array_"
VECTOR = "fabric.accelerator.vector."
WINDOW = "fabric.window."
LANES = {
    "parameter_memory.part": 1, "table_memory.lane": 1,
    "sum_memory.part": LANES_PER_SUM_ITEM, "vector_memory.part": LANES_PER_VECTOR_ITEM,
}  # fmt: skip
"""Lanes of the vector unit at one part of its memories."""


def site(index: int, row: int) -> str:
    """nextpnr's name of a row's block RAM, from the left.

    >>> site(0, 22), site(27, 22), site(28, 22)
    ('X4/Y22/EBR0', 'X64/Y22/EBR3', 'X69/Y22/EBR0')
    """
    group, member = divmod(index, 4)
    middle = 2 * (2 * index >= SITES + 4)  # columns without block RAM
    return f"X{4 + 9 * group + middle + 2 * member}/Y{row}/EBR{member}"


def fix(netlist: dict[str, Any]) -> int:
    """Give the block RAMs of arrays, vector unit and window in Yosys' JSON their sites; gives how
    many. What a row has no room for is left to the placer."""
    cells = netlist["modules"]["top"]["cells"]
    blocks = sorted(name for name, cell in cells.items() if cell["type"] == BLOCK_RAM)
    operands, sums = _vector(blocks)
    window = [name for name in blocks if name.startswith(WINDOW)]
    margin = max(SITES - len(window), 0) // 2
    sites = {
        **_arrays(blocks),
        **_spread(sums, SUM_ROW, VECTOR_SITES),
        **_spread(operands, OPERAND_ROW, VECTOR_SITES),
        **_spread(window, WINDOW_ROW, range(margin, SITES - margin)),
    }
    for name, where in sites.items():
        cells[name]["attributes"]["BEL"] = where
    return len(sites)


def _arrays(blocks: Iterable[str]) -> dict[str, str]:
    """Arrays from left to right; an array's feeder lies between the halves of its banks."""
    arrays: dict[str, list[str]] = defaultdict(list)
    for name in blocks:
        if name.startswith(ARRAYS):
            arrays[name.removeprefix(ARRAYS).split(".")[0]].append(name)
    most, sites = SITES // max(len(arrays), 1), {}
    for number, names in enumerate(arrays.values()):
        banks = [name for name in names if ".bank_" in name]
        feeder = [name for name in names if ".bank_" not in name]
        half = len(banks) // 2
        if len(names) <= most:
            for i, name in enumerate([*banks[:half], *feeder, *banks[half:]]):
                sites[name] = site(number * most + i, ARRAY_ROW)
    return sites


def _vector(blocks: Iterable[str]) -> tuple[list[str], list[str]]:
    """Operands' block RAMs with the parameters', and sums' with the tables', by the vector lane."""
    found = []
    for name in blocks:
        part = re.match(rf"{re.escape(VECTOR)}(\w+\.[a-z]+)_(\d+)", name)
        if part and part[1] in LANES:
            found.append(((int(part[2]) + 0.5) * LANES[part[1]], name))
    order = [name for _, name in sorted(found)]
    sums = [name for name in order if ".sum_memory" in name or ".table_memory" in name]
    return [name for name in order if name not in sums], sums


def _spread(names: list[str], row: int, places: range) -> dict[str, str]:
    """Names in their order, evenly over the places; none when there are too few places."""
    if len(names) > len(places):
        return {}
    return {name: site(places[i * len(places) // len(names)], row) for i, name in enumerate(names)}
