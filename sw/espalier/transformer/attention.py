"""Attention from its parts: products of heads, masks, softmax, whatever a model calls them."""

from __future__ import annotations

import torch
from torch import Tensor

from . import float_graph as fg
from .functions import Function
from .labels import LayoutError
from .masks import classify
from .traced import Known, Scores, Traced
from .values import OF_SCORES, Values

REFUSED = -1e3
"""A score with less than this added is not allowed: models add -inf, -1e4, -1e9."""


class AttentionBuilder(Values):
    """Scores are a result of their own: feature head·tokens + j of token i is the score of j."""

    def _scores(self, query: Traced, key: Traced) -> Traced:
        scale = query.factor() * key.factor()
        lead = torch.broadcast_shapes(query.labels.shape[:-2], key.labels.shape[:-2])
        q, k = (x.labels.expand(*lead, *x.labels.shape[-2:]) for x in (query, key))
        if q.shape[-1] != k.shape[-1]:
            raise LayoutError("has queries and keys of different sizes")
        query_features, key_features = self.labels.heads(q), self.labels.heads(k)
        sample = self._samples(q)
        if (sample != self._samples(k)).any():
            raise LayoutError("multiplies queries of one sample with keys of another")
        heads, tokens = len(query_features), self.labels.tokens
        allowed = torch.ones(self.labels.samples, heads, tokens, tokens, dtype=torch.bool)
        scores = Scores(query_features, key_features, scale, allowed)
        start = self._own(heads * tokens, scores)
        return Traced(self._score_labels(start, sample, heads).view(*lead, tokens, tokens))

    def _samples(self, labels: Tensor) -> Tensor:
        return self.labels.decode(labels.reshape(-1, *labels.shape[-2:])[:, 0, 0])[1]

    def _score_labels(self, start: int, sample: Tensor, heads: int) -> Tensor:
        """Labels [n, tokens, tokens] of scores of samples [n]: heads in order within a sample."""
        tokens, head = self.labels.tokens, torch.zeros_like(sample)
        for b in range(self.labels.samples):
            head[sample == b] = torch.arange(heads)
        features = start + head[:, None, None] * tokens + torch.arange(tokens)
        token = torch.arange(tokens)[None, :].expand(len(sample), -1)
        where = sample[:, None].expand(-1, tokens)
        coded = features.expand(-1, tokens, -1) * self.labels.samples + where[..., None]
        return coded * tokens + token[..., None]

    def mask_scores(self, labels: Tensor, function: Function) -> Traced:
        """Scores under scale·x + mask, where a mask is 0 or refuses."""
        feature, sample, token = self.labels.decode(labels)
        owner, places = self.owner(feature)
        if not isinstance(owner, Scores) or owner.normalized:
            raise LayoutError(OF_SCORES)
        zero, one, two = (
            torch.as_tensor(function(torch.full(labels.shape, float(x), dtype=torch.float64)))
            for x in (0, 1, 2)
        )
        kept = zero > REFUSED
        if (zero[kept] != 0).any():
            raise LayoutError("adds a bias to scores; only masks of 0 and -inf can be added")
        scales = one[kept]
        scale = float(scales[0]) if len(scales) else 1.0
        if not (
            torch.allclose(scales, scales.new_tensor(scale))
            and torch.allclose(two[kept], 2 * scales)
        ):
            raise LayoutError("is a function of scores that is not a scale and a mask")
        tokens = self.labels.tokens
        allowed = owner.allowed.clone()
        allowed[sample, places // tokens, token, places % tokens] &= kept
        scores = Scores(owner.query, owner.key, owner.scale * scale, allowed)
        return self._replaced(labels, scores)

    def _replaced(self, labels: Tensor, scores: Scores) -> Traced:
        """The same elements as those of other scores."""
        feature, sample, token = self.labels.decode(labels)
        places = self.owner(feature)[1]
        start = self._own(scores.heads * self.labels.tokens, scores)
        return Traced(
            ((start + places) * self.labels.samples + sample) * self.labels.tokens + token
        )

    def softmax(self, input: Traced, dim: int, *ignored: object) -> Traced:
        """aten.softmax of scores over the keys."""
        if input.function is not None:
            input = self.mask_scores(input.labels, input.function)
        feature, _, _ = self.labels.decode(input.labels)
        owner, places = self.owner(feature)
        if not isinstance(owner, Scores) or owner.normalized:
            raise LayoutError("is only supported in attention; apply it to outputs on the host")
        tokens = self.labels.tokens
        if (
            dim % feature.dim() != feature.dim() - 1
            or (places % tokens != torch.arange(tokens)).any()
        ):
            raise LayoutError("must be over the keys, the last axis of the scores")
        scores = Scores(owner.query, owner.key, owner.scale, owner.allowed, normalized=True)
        return self._replaced(input.labels, scores)

    def attention(
        self,
        query: Traced,
        key: Traced,
        value: Traced,
        mask: Known | None = None,
        dropout: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Traced:
        """aten.scaled_dot_product_attention."""
        if not all(isinstance(x, Traced) for x in (query, key, value)):
            raise LayoutError("takes a tensor that does not depend on the tokens' values")
        if dropout:
            raise LayoutError("has dropout; set it to 0 outside training")
        if enable_gqa:
            groups = query.labels.shape[-3] // key.labels.shape[-3]
            key, value = (
                Traced(x.labels.repeat_interleave(groups, -3), x.function) for x in (key, value)
            )
        scale = query.labels.shape[-1] ** -0.5 if scale is None else scale
        scores = self._scores(query, Traced(key.labels, key.function)).then(lambda x: x * scale)
        if is_causal:
            above = torch.ones(self.labels.tokens, self.labels.tokens, dtype=torch.bool).triu(1)
            scores = scores.then(lambda x: x.masked_fill(above, -torch.inf))
        if mask is not None:
            scores = scores.then(lambda x: _masked(x, mask.value))
        settled = self.mask_scores(scores.labels, scores.function)
        return self._apply(self.softmax(settled, -1), value)

    def _apply(self, weights: Traced, values: Traced) -> Traced:
        """Attention weights times values."""
        if values.factor() != 1:
            raise LayoutError("multiplies the values by a number; fold it into a linear layer")
        tokens = self.labels.tokens
        lead = torch.broadcast_shapes(weights.labels.shape[:-2], values.labels.shape[:-2])
        p, v = (x.labels.expand(*lead, *x.labels.shape[-2:]) for x in (weights, values))
        feature, sample, token = self.labels.decode(p.reshape(-1, *p.shape[-2:]))
        scores, places = self.owner(feature)
        if not isinstance(scores, Scores) or not scores.normalized:
            raise LayoutError("multiplies scores without a softmax with values")
        in_order = (token == torch.arange(tokens)[:, None]) & (
            places % tokens == torch.arange(tokens)
        )
        if feature.shape[-2:] != (tokens, tokens) or not in_order.all():
            raise LayoutError("must have the attention weights' tokens in order")
        value_features = self.labels.heads(v)
        if (sample[:, 0, 0] != self._samples(v)).any():
            raise LayoutError("multiplies weights of one sample with values of another")
        head = (places // tokens)[:, 0, 0]
        for b in range(self.labels.samples):
            if not torch.equal(head[sample[:, 0, 0] == b], torch.arange(scores.heads)):
                raise LayoutError("must have the heads in one order")
        features = self._attend(scores, value_features)
        result = features[head][:, None] * self.labels.samples + sample[:, :, :1]
        result = result * tokens + token[:, :, :1]
        return Traced(result.view(*lead, tokens, -1))

    def _attend(self, scores: Scores, value_features: Tensor) -> Tensor:
        """The features [heads, size] of an attention's result."""
        heads, size = value_features.shape
        if scores.query.shape != value_features.shape:
            raise LayoutError("has heads of values that are larger or fewer than those of queries")
        values = [self.whole(f.reshape(-1)) for f in (scores.query, scores.key, value_features)]
        causal = classify(scores.allowed, self.lengths)
        result, features = self._new("attention", heads * size)
        self._append(fg.Attention(*values, result, heads, size, scores.scale, causal))
        return features.view(heads, size)


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else x + mask
