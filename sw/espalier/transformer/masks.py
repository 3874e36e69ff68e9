"""What an attention mask means: full or causal, with padding on the right left out."""

from __future__ import annotations

import torch
from torch import Tensor

from .labels import LayoutError


def classify(allowed: Tensor, lengths: tuple[int, ...]) -> bool:
    """Whether attention is causal, from allowed [samples, heads, tokens, tokens].

    Tokens beyond a sample's length are padding, which the accelerator never computes: what they see
    does not matter, and whether they are seen must not. Raises LayoutError for any other mask.
    """
    kinds = set()
    for sample, length in enumerate(lengths):
        seen = allowed[sample, :, :length, :length]
        lower = torch.ones(length, length, dtype=torch.bool).tril()
        if seen.all():
            kinds.add(False)
        elif (seen == lower).all():
            kinds.add(True)
        else:
            raise LayoutError("has a mask that is neither full nor causal")
        if False in kinds and allowed[sample, :, :length, length:].any():
            raise LayoutError("lets tokens see padding, although the model is given a mask")
    if len(kinds) != 1:
        raise LayoutError("has a mask that differs between samples by more than their lengths")
    return kinds.pop()
