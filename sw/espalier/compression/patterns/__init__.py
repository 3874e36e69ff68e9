"""Patterns: which sets of weights are allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ...spec.config import Config
from ..parts import Pattern, unknown
from .blocks import Blocks
from .column_balanced import ColumnBalanced
from .fine_grained import FineGrained
from .groups import Groups
from .k_of_n import KOfN
from .rows import Heads, Rows
from .uniform_k import UniformK

PATTERNS: dict[str, Callable[[Config], Pattern]] = {
    "column-balanced": ColumnBalanced.of,
    "uniform-k": lambda config: UniformK(lanes=config.lanes),
    "fine-grained": lambda config: FineGrained(),
    "groups": lambda config: Groups(),
    "blocks": lambda config: Blocks(),
    "rows": lambda config: Rows(),
    "filters": lambda config: Rows(),
}
K_OF_N = "2:4 (any k:n)"


def make_pattern(value: Any, config: Config) -> Pattern:
    """The pattern of an object or a name; the hardware's have the lanes of `config`."""
    if isinstance(value, Pattern):
        return value
    if isinstance(value, str):
        if value in PATTERNS:
            return PATTERNS[value](config)
        if found := re.fullmatch(r"(\d+):(\d+)", value):
            return KOfN(int(found[1]), int(found[2]))
    raise unknown("pattern", value, [*PATTERNS, K_OF_N])


def pattern_name(pattern: Pattern) -> str:
    """What a report calls a pattern."""
    names = {
        ColumnBalanced: "column-balanced",
        UniformK: "uniform-k",
        FineGrained: "fine-grained",
        Groups: "groups",
        Blocks: "blocks",
        Rows: "rows",
        Heads: "heads",
    }
    if isinstance(pattern, KOfN):
        return f"{pattern.k}:{pattern.n}"
    return names.get(type(pattern), type(pattern).__name__)


__all__ = [
    "PATTERNS", "Blocks", "ColumnBalanced", "FineGrained", "Groups", "Heads", "KOfN", "Rows",
    "UniformK",
    "make_pattern", "pattern_name",
]  # fmt: skip
