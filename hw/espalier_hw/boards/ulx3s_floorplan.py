"""Where block RAMs lie on an ECP5-85F: arrays side by side along one row, the window in another.

A placer that chooses them freely deals an array's banks, which have to be near its lanes, over the
whole width of the chip. With them in place everything else falls into place by itself: the vector
unit between its arrays and the window, in the rows that are left to it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

SITES = 52
"""Block RAMs in each row of the chip."""
ARRAY_ROW, WINDOW_ROW = 22, 82
"""Of the rows 22, 46, 70 and 82. Source: Project Trellis' database of the LFE5U-85F."""
BLOCK_RAM = "DP16KD"
ARRAYS = "fabric.accelerator.engine.array_"
WINDOW = "fabric.window."


def site(index: int, row: int) -> str:
    """nextpnr's name of a row's block RAM, from the left.

    >>> site(0, 22), site(27, 22), site(28, 22)
    ('X4/Y22/EBR0', 'X64/Y22/EBR3', 'X69/Y22/EBR0')
    """
    group, member = divmod(index, 4)
    middle = 2 * (2 * index >= SITES + 4)  # columns without block RAM
    return f"X{4 + 9 * group + middle + 2 * member}/Y{row}/EBR{member}"


def fix(netlist: dict[str, Any]) -> int:
    """Give the block RAMs of arrays and window in Yosys' JSON their sites; gives how many.

    An array's feeder lies between the halves of its banks. What a row has no room for is left to
    the placer.
    """
    cells = netlist["modules"]["top"]["cells"]
    arrays: dict[str, list[str]] = defaultdict(list)
    window = []
    for name in sorted(cells):
        if cells[name]["type"] == BLOCK_RAM:
            if name.startswith(ARRAYS):
                arrays[name.removeprefix(ARRAYS).split(".")[0]].append(name)
            elif name.startswith(WINDOW):
                window.append(name)
    sites = {}
    most = SITES // max(len(arrays), 1)
    for number, names in enumerate(arrays.values()):
        if len(names) <= most:
            places = range(number * most, SITES)
            sites |= {n: site(i, ARRAY_ROW) for n, i in zip(_around(names), places, strict=False)}
    if len(window) <= SITES:
        first = (SITES - len(window)) // 2
        sites |= {name: site(first + i, WINDOW_ROW) for i, name in enumerate(window)}
    for name, where in sites.items():
        cells[name]["attributes"]["BEL"] = where
    return len(sites)


def _around(names: list[str]) -> list[str]:
    """Half of the banks, the feeder, the other half."""
    banks = [name for name in names if ".bank_" in name]
    others = [name for name in names if ".bank_" not in name]
    half = len(banks) // 2
    return [*banks[:half], *others, *banks[half:]]
