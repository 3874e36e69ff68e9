"""Weights that are large and meet large inputs are important."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..parts import Score
from ..weights import Weight


@dataclass(frozen=True)
class Wanda(Score):
    """|w_ij|·sqrt(E[x_j^2]): magnitude scaled by the root mean square of the input.

    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, arXiv
    2306.11695, equation 1. There weights of one row compete; here the pattern decides which do.
    """

    calibrated = True

    def __call__(self, weight: Weight, value: Tensor) -> Tensor:
        return value.abs() * weight.state["moment"].diagonal().sqrt().to(value.dtype)
