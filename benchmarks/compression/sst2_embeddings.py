"""Smaller embeddings: the table of words pruned and rounded once, before the encoder is retrained.

The machine keeps tables on the host, so no pattern is asked for; words that the task's texts use
more are given more.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from espalier.compression.patterns.fine_grained import top
from espalier.quantized.weights import integer_weight, row_scales
from espalier.spec.numerics import WEIGHT_LEVELS

UNSEEN = 0.1
"""Uses that a word is given beside those in the training rows."""


def counts(sentences: Iterable[Tensor], words: int) -> Tensor:
    """How often each of so many words is used [words]."""
    return torch.bincount(torch.cat(list(sentences)), minlength=words).float()


@torch.no_grad()
def compress(table: Tensor, density: float, bits: int, used: Tensor) -> Tensor:
    """The table [words, C] with a share of its elements, rounded to `bits` with a step per word.

    Elements of the largest |e|·sqrt(uses) stay: the least squared error of what the texts' words
    give (Wanda's score, for a matrix whose inputs are words one by one). 32 bits leave floats.
    """
    if density < 1:
        score = table.abs() * (used + UNSEEN).sqrt()[:, None]
        table = table * top(score.flatten(), density * table.numel()).view(table.shape)
    if bits == 32:
        return table
    scale = row_scales(table, torch.full_like(table[0], WEIGHT_LEVELS[bits]), torch.inf)
    return integer_weight(table, scale, bits) * scale[:, None]
