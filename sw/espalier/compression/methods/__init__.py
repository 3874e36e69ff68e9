"""Methods: how training gets to the pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..parts import Method, unknown
from .admm import Admm, admm_sr_ste
from .gradual import Gradual, OneShot
from .reconstruction import LeastSquares, SparseGpt
from .sr_ste import SrSte

METHODS: dict[str, Callable[[], Method]] = {
    "gradual": Gradual,
    "one-shot": OneShot,
    "sr-ste": SrSte,
    "admm": Admm,
    "admm-sr-ste": admm_sr_ste,
    "sparsegpt": SparseGpt,
    "least-squares": LeastSquares,
}


def make_method(value: Any) -> Method:
    """The method of an object or a name."""
    if isinstance(value, Method):
        return value
    if isinstance(value, str) and value in METHODS:
        return METHODS[value]()
    raise unknown("method", value, list(METHODS))


__all__ = [
    "METHODS", "Admm", "Gradual", "LeastSquares", "OneShot", "SparseGpt", "SrSte", "make_method",
]  # fmt: skip
