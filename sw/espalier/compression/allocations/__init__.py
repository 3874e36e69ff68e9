"""Allocations: how much of each matrix is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..parts import Allocation, unknown
from .fan import ErdosRenyi
from .ranking import Global
from .uniform import Uniform

ALLOCATIONS: dict[str, Callable[[], Allocation]] = {
    "uniform": Uniform,
    "erdos-renyi": ErdosRenyi,
    "global": Global,
}


def make_allocation(value: Any) -> Allocation:
    """The allocation of an object or a name."""
    if isinstance(value, Allocation):
        return value
    if isinstance(value, str) and value in ALLOCATIONS:
        return ALLOCATIONS[value]()
    raise unknown("allocation", value, list(ALLOCATIONS))


__all__ = ["ALLOCATIONS", "ErdosRenyi", "Global", "Uniform", "make_allocation"]
