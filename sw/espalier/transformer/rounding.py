"""Weights rounded one column after another, each column's error made up for by those that follow.

What counts is the error of weight @ x over the samples, whose moments H = sum of x x^T say which
columns can stand in for each other.

Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1, without its grouping.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quantized.weights import integer_weight

DAMPING = 0.3
"""Share of the mean diagonal of H that is added to it, far more than the paper takes for far more
tokens: errors are not moved along directions that a few sentences cannot tell apart."""
BLOCK = 64
"""Columns whose errors are carried to all later ones together."""


@torch.no_grad()
def round_columns(weight: Tensor, scale: Tensor, bits: int, moments: Tensor) -> Tensor:
    """Integers [M, N] of weights [M, N] with row scales [M], for inputs of `moments` [N, N].

    A weight of 0 was pruned and stays 0.
    """
    steps, kept = weight.double() / scale.double()[:, None], weight != 0
    carry = _carry(moments.double())
    if carry is None:
        return integer_weight(weight, scale, bits)
    one, result = torch.ones_like(scale).double(), torch.zeros_like(steps)
    for first in range(0, weight.shape[1], BLOCK):
        end = min(first + BLOCK, weight.shape[1])
        errors = torch.zeros_like(steps[:, first:end])
        for j in range(first, end):
            result[:, j] = integer_weight(steps[:, j : j + 1], one, bits)[:, 0] * kept[:, j]
            errors[:, j - first] = (steps[:, j] - result[:, j]) / carry[j, j]
            steps[:, j + 1 : end] -= errors[:, j - first, None] * carry[j, j + 1 : end]
        steps[:, end:] -= errors @ carry[first:end, end:]
    return result.to(weight.dtype)


def _carry(moments: Tensor) -> Tensor | None:
    """The upper Cholesky factor of the damped moments' inverse; None when they are all 0."""
    mean = float(moments.diagonal().mean())
    if mean <= 0:
        return None
    damped = moments + DAMPING * mean * torch.eye(len(moments), dtype=moments.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)
