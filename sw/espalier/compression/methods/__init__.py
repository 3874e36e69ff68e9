"""Methods: how training gets to the pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..parts import Method, unknown
from .admm import Admm, admm_sr_ste
from .besa import Besa
from .gradual import Gradual, OneShot
from .identity_prior import IdentityPrior
from .multi_level import MultiLevel
from .probabilistic import Probabilistic
from .reconstruction import LeastSquares, SparseGpt
from .recycle import Recycle
from .sr_ste import SrSte

METHODS: dict[str, Callable[[], Method]] = {
    "gradual": Gradual,
    "one-shot": OneShot,
    "sr-ste": SrSte,
    "admm": Admm,
    "admm-sr-ste": admm_sr_ste,
    "sparsegpt": SparseGpt,
    "least-squares": LeastSquares,
    "besa": Besa,
    "multi-level": MultiLevel,
    "probabilistic": Probabilistic,
    "recycle": Recycle,
    "identity-prior": IdentityPrior,
}


def make_method(value: Any) -> Method:
    """The method of an object or a name."""
    if isinstance(value, Method):
        return value
    if isinstance(value, str) and value in METHODS:
        return METHODS[value]()
    raise unknown("method", value, list(METHODS))


__all__ = [
    "METHODS", "Admm", "Besa", "Gradual", "IdentityPrior", "LeastSquares", "MultiLevel", "OneShot",
    "Probabilistic", "Recycle", "SparseGpt", "SrSte", "make_method",
]  # fmt: skip
