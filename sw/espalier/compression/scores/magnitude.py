"""Large weights are important."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..parts import Score
from ..weights import Weight


@dataclass(frozen=True)
class Magnitude(Score):
    """|w|. Source: Han et al., Learning both Weights and Connections, arXiv 1506.02626."""

    def __call__(self, weight: Weight, value: Tensor) -> Tensor:
        return value.abs()
