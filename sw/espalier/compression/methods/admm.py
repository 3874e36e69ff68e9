"""Pull the weights towards the pattern while they are still all in use; then prune and retrain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import Method
from ..weights import Weight


@dataclass(frozen=True, kw_only=True)
class Admm(Method):
    """Alternating direction method of multipliers for: minimize f(W), W in the pattern.

    Gradient steps on f(W) + rho/2·|W - Z + U|^2; at each of `updates` the projection Z = P(W + U)
    onto the pattern and the dual update U = U + W - Z. At `Recipe.prune_end` W = P(W), and what is
    left is retrained.

    Parameters
    ----------
    rho: strength of the pull.
    updates: few: between two of them the weights must have time to follow the pull, or the duals
        of all that is left out pile up until the pattern jumps.
    masked: compute with P(W + U)'s mask from the first step on (see "admm-sr-ste").
    decay: SR-STE's decay of weights outside of that mask.

    Source: Wang, ADMM Based Semi-Structured Pattern Pruning Framework For Transformer, arXiv
    2407.08334; Zhang et al., A Systematic DNN Weight Pruning Framework, arXiv 1804.03294.
    """

    trained = True

    rho: float = 0.1
    updates: int = 4
    masked: bool = False
    decay: float = 0.0

    def scored(self, weight: Weight, fixed: bool) -> Tensor:
        return weight.value if fixed else weight.value + weight.state.get("dual", 0.0)

    def apply(self, weight: Weight, mask: Tensor, fixed: bool) -> None:
        if fixed:
            weight.set_mask(mask)
            return
        value = weight.value
        if "dual" in weight.state:
            moved = value + weight.state["dual"]
            weight.state["target"] = moved * mask
            weight.state["dual"] = moved - weight.state["target"]
        else:
            weight.state["target"] = value * mask
            weight.state["dual"] = torch.zeros_like(value)
        weight.set_mask(mask if self.masked else torch.ones_like(mask))

    def gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        if weight.frozen:
            return gradient
        value, state = weight.value, weight.state
        pull = self.rho * (value - state["target"] + state["dual"])
        return gradient + pull + self.decay * value * ~weight.mask


def admm_sr_ste() -> Admm:
    """Both at once: ADMM's pull, and SR-STE's masked forward and decay.

    The pull alone fades where a weight's own gradient has vanished; the masked forward shows the
    loss what pruning will do. Source: Wang, arXiv 2407.08334, on ADMM with SR-STE.
    """
    return Admm(masked=True, decay=2e-4)
