"""How the rows of a transformer's matrix are cut into blocks: what compiler and pruning agree on,
so that a pattern that is balanced in every block needs no padding."""

from __future__ import annotations

from .config import SLOTS, Config


def block_units(units: int, planes: int, unit: int, config: Config) -> list[int]:
    """Units of rows in each block; a unit is a number of rows that stay together.

    An even number of blocks of at most half of the slots each, where the units allow it: then
    blocks use the two halves in turn, from token to token, and one is drained while the next
    accumulates. Blocks are equal, but for the last one, which has the rest. An empty list when
    there is no unit, or not even one fits the slots.
    """
    most = SLOTS // 2 // planes * config.lanes // unit
    most = most or SLOTS // planes * config.lanes // unit
    if most == 0 or units == 0:
        return []
    count = -(-units // most)
    count += count % 2 if units > 1 else 0
    size = units // count
    if units - size * (count - 1) > most:
        size = -(-units // count)
    blocks = [min(size, units - at) for at in range(0, size * (count - 1), size) if at < units]
    return [*blocks, rest] if (rest := units - sum(blocks)) else blocks


def row_blocks(rows: int, bit_width: int, config: Config) -> int:
    """Blocks into which `rows` rows are cut when they divide evenly, else 1."""
    blocks = block_units(rows // config.lanes, bit_width // 4, config.lanes, config)
    even = rows % config.lanes == 0 and len(set(blocks)) == 1
    return len(blocks) if even else 1
