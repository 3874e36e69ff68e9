"""The accumulator proof: every final value fits, or the columns are split into several products
with drains between.

In a slot: the sum of |digit|·peak over the columns of one array < 2^19, for every row, plane and
array. Column inputs are at most 127, differences (drained every step) at most 254; wrap on the way
is harmless. Drained: the sum of |weight|·127 over all columns of a row < 2^26; the running sum of
differences is bounded by the same, because the columns that it stands for are.
"""

from __future__ import annotations

import numpy as np

from ..errors import CapacityError
from ..spec.config import ACCUMULATOR_BITS, SUM_BITS
from ..spec.numerics import COLUMN_MAX, DELTA_MAX
from .packing import Packed

SLOT_LIMIT = (1 << (ACCUMULATOR_BITS - 1)) - 1
SUM_LIMIT = (1 << (SUM_BITS - 1)) - 1


def peak(delta: bool) -> int:
    """Largest magnitude that a column sends between two drains."""
    return DELTA_MAX if delta else COLUMN_MAX


def check_sum(magnitude: np.ndarray, name: str) -> None:
    """Raise CapacityError unless the persistent sum of rows fits; `magnitude` is the sum of
    |weight| of each row."""
    worst = int(magnitude.max(initial=0)) * COLUMN_MAX
    if worst > SUM_LIMIT:
        raise CapacityError(
            f"{name}: the sum of |weight|·{COLUMN_MAX} of every row must be at most {SUM_LIMIT}, "
            f"not {worst}; "
            "use fewer columns, a lower density or 4 bits"
        )


def split(products: list[Packed], delta: bool) -> list[list[tuple[int, Packed, int]]]:
    """Segments of (number of the product, its part, first group), each proven to fit between two
    drains."""
    limit = SLOT_LIMIT // peak(delta)
    segments: list[list[tuple[int, Packed, int]]] = [[]]
    load = np.zeros_like(products[0].magnitudes[:, 0])
    for number, packed in enumerate(products):
        whole = packed.magnitudes.sum(1)
        if (load + whole).max() <= limit:
            segments[-1].append((number, packed, 0))
            load = load + whole
            continue
        cuts = _cuts(packed, load, limit)
        for first, end, fresh, _ in cuts:
            if fresh and segments[-1]:
                segments.append([])
            segments[-1].append((number, packed.part(first, end), first))
        load = cuts[-1][3]
    return segments


def _cuts(packed: Packed, load: np.ndarray, limit: int) -> list[tuple[int, int, bool, np.ndarray]]:
    """(first group, end, begins a new segment, load after it) of the parts of one product."""
    cuts, first, fresh = [], 0, False
    for group in range(packed.groups):
        step = packed.magnitudes[:, group]
        if (load + step).max() > limit:
            if group > first:
                cuts.append((first, group, fresh, load))
            first, fresh, load = group, True, np.zeros_like(load)
        load = load + step
    return [*cuts, (first, packed.groups, fresh, load)]
