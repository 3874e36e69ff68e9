"""Every matrix keeps the share that the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..parts import Allocation
from ..weights import Weight


@dataclass(frozen=True)
class Uniform(Allocation):
    """The recipe's density, exceptions by name included."""

    def densities(self, weights: Sequence[Weight], scores: Sequence[Tensor]) -> list[float]:
        return [weight.density for weight in weights]
