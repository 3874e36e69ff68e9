"""Tensors of the traced model as labels: which feature of which token of which sample lies where.

A label is (feature, sample, token). Data movement is then done by torch itself on these integers,
whatever views and transposes a model uses. Features of all values count from `Labels.new` on, so
that a feature tells its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class LayoutError(Exception):
    """A tensor's layout cannot be followed; the message follows the operator's name."""


@dataclass
class Labels:
    """The coding for `samples` of `tokens` tokens."""

    samples: int
    tokens: int
    features: int = 0

    def new(self, width: int) -> Tensor:
        """Labels [samples, tokens, width] of new features; the first of them is `features`."""
        feature = self.features + torch.arange(width)
        self.features += width
        token = torch.arange(self.tokens)[:, None]
        sample = torch.arange(self.samples)[:, None, None]
        return (feature * self.samples + sample) * self.tokens + token

    def decode(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(feature, sample, token) of labels, each of their shape."""
        rest, token = labels // self.tokens, labels % self.tokens
        return rest // self.samples, rest % self.samples, token

    def rows(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(features [width], sample [...], token [...]) of vectors along the last axis.

        Raises LayoutError when a vector mixes samples or tokens, or vectors differ in features.
        """
        if labels.dim() == 0:
            raise LayoutError("takes a single number")
        feature, sample, token = self.decode(labels)
        for position, name in ((sample, "samples"), (token, "tokens")):
            if (position != position[..., :1]).any():
                raise LayoutError(f"mixes {name}: it must work on each token by itself")
        first = feature.reshape(-1, feature.shape[-1])[0]
        if (feature != first).any():
            raise LayoutError("takes other features of one token than of another")
        return first, sample[..., 0], token[..., 0]

    def heads(self, labels: Tensor) -> Tensor:
        """features [heads, size] of [..., tokens, size], with all samples in the leading axes.

        Raises LayoutError when the tokens are not in order along the last axis but one.
        """
        if labels.dim() < 2 or labels.shape[-2] != self.tokens:
            raise LayoutError("must have the tokens along the last axis but one")
        flat = labels.reshape(-1, *labels.shape[-2:])
        feature, sample, token = self.decode(flat)
        if (token != torch.arange(self.tokens)[:, None]).any():
            raise LayoutError("must have the tokens in order along the last axis but one")
        if (sample != sample[:, :1, :1]).any() or (feature != feature[:, :1]).any():
            raise LayoutError("mixes samples, or features of different tokens")
        by_sample = [feature[sample[:, 0, 0] == b, 0] for b in range(self.samples)]
        if any(
            each.shape != by_sample[0].shape or (each != by_sample[0]).any() for each in by_sample
        ):
            raise LayoutError("takes other heads of one sample than of another")
        return by_sample[0]

    def take(self, features: Tensor, sample: Tensor, token: Tensor) -> Tensor:
        """Labels [..., width] of features [width] for samples and tokens [...]."""
        return (features * self.samples + sample[..., None]) * self.tokens + token[..., None]
