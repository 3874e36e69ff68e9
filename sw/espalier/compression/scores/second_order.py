"""Weights whose loss the others cannot make up for are important."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import Score
from ..weights import Weight


@dataclass(frozen=True, kw_only=True)
class SecondOrder(Score):
    """w_ij^2 / [H^-1]_jj, with H = E[x x^T] of the layer's inputs.

    The error of the layer's output when this weight goes and the others of its row are adjusted.

    Parameters
    ----------
    damping: share of H's mean diagonal that is added to its diagonal.

    Source: Hassibi and Stork, Second order derivatives for network pruning: Optimal Brain Surgeon
    (1992), equation 5; for layers as in Frantar and Alistarh, SparseGPT, arXiv 2301.00774.
    """

    calibrated = True

    damping: float = 0.01

    def __call__(self, weight: Weight, value: Tensor) -> Tensor:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(weight, self.damping)))
        return value.square() / inverse.diagonal().to(value.dtype)


def damped(weight: Weight, damping: float) -> Tensor:
    """E[x x^T] [N, N] of a layer's inputs in double precision, safely invertible."""
    moment = weight.state["moment"].double()
    ridge = damping * moment.diagonal().mean().clamp(min=1e-12)
    return moment + ridge * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
