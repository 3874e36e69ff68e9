"""Scores: which weights are important."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..parts import Score, unknown
from .activation import Wanda
from .magnitude import Magnitude
from .movement import Movement
from .second_order import SecondOrder

SCORES: dict[str, Callable[[], Score]] = {
    "magnitude": Magnitude,
    "movement": Movement,
    "wanda": Wanda,
    "second-order": SecondOrder,
}


def make_score(value: Any) -> Score:
    """The score of an object or a name."""
    if isinstance(value, Score):
        return value
    if isinstance(value, str) and value in SCORES:
        return SCORES[value]()
    raise unknown("score", value, list(SCORES))


__all__ = ["SCORES", "Magnitude", "Movement", "SecondOrder", "Wanda", "make_score"]
