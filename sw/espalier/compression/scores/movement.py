"""Weights that training moves away from zero are important."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import Score
from ..weights import Weight


@dataclass(frozen=True)
class Movement(Score):
    """S = -sum over steps of dL/dw'·w, with the gradient of the pruned weight w'.

    Weights that are pruned for the moment get no gradient, but their scores do, so they may return.
    Until the first step the score is |w|.
    Source: Sanh, Wolf and Rush, Movement Pruning, arXiv 2005.07683, equations 2 to 4.
    """

    trained = True

    def __call__(self, weight: Weight, value: Tensor) -> Tensor:
        return weight.state.get("movement", value.abs())

    def gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        if weight.frozen:
            return gradient
        if "movement" not in weight.state:
            weight.state["movement"] = torch.zeros_like(weight.value)
        weight.state["movement"] -= gradient * weight.value
        return gradient * weight.mask
