"""Operations from traced tensors: what the walk calls for every operator that computes."""

from __future__ import annotations

import torch
from torch import Tensor

from . import float_graph as fg
from .attention import AttentionBuilder
from .embeddings import EmbeddingBuilder
from .float_graph import Reference, Value
from .functions import recognize
from .labels import LayoutError
from .traced import Known, Pooled, Scores, Traced
from .values import OF_SCORES


class Builder(AttentionBuilder, EmbeddingBuilder):
    """A method for every operator that computes; LayoutError where it cannot be done."""

    def settle(self, traced: Traced) -> Traced:
        """The same with its function made an operation."""
        if traced.function is None:
            return traced
        feature, sample, token = self.labels.decode(traced.labels)
        owner, _ = self.owner(feature)
        if isinstance(owner, Scores):
            return self.mask_scores(traced.labels, traced.function)
        function = recognize(traced.function)
        if function is None:
            raise LayoutError(
                "ends a function that is not supported; gelu, relu, tanh and sigmoid are"
            )
        if function == 1.0:
            return Traced(traced.labels)
        if isinstance(owner, Pooled):
            return self._settle_pooled(owner, traced.labels, function)
        used = feature.unique()
        value = self.whole(used)
        if isinstance(function, float):
            return self._scaled(value, function, traced.labels)
        result, new = self._new(function, value.width)
        self._append(fg.Activation(function, value, result))
        moved = new[torch.searchsorted(used, feature)]
        return Traced((moved * self.labels.samples + sample) * self.labels.tokens + token)

    def _settle_pooled(self, pooled: Pooled, labels: Tensor, function: str | float) -> Traced:
        if not isinstance(function, str) or not pooled.layers or pooled.layers[-1].activation:
            raise LayoutError("is not supported on the pooled token")
        last = pooled.layers[-1]
        layers = [*pooled.layers[:-1], fg.HostLayer(last.weight, last.bias, function)]
        feature, sample, token = self.labels.decode(labels)
        places = self.owner(feature)[1]
        start = self._own(len(last.weight.places), Pooled(pooled.value, layers))
        moved = start + places
        return Traced((moved * self.labels.samples + sample) * self.labels.tokens + token)

    def linear(self, input: Traced | Known, weight: Known, bias: Known | None = None) -> Traced:
        """aten.linear."""
        return self._linear(input, weight, bias)

    def addmm(
        self, bias: Known, input: Traced, weight: Known, *, beta: float = 1, alpha: float = 1
    ) -> Traced:
        """aten.addmm: weight is [inputs, outputs]."""
        if beta != 1 or alpha != 1:
            raise LayoutError("has alpha or beta other than 1")
        return self._linear(input, _transposed(weight), bias)

    def matmul(self, a: Traced | Known, b: Traced | Known) -> Traced:
        """aten.matmul, mm, bmm: with a parameter, or of attention."""
        if isinstance(a, Traced) and isinstance(b, Known):
            return self._linear(a, _transposed(b), None)
        if isinstance(a, Traced) and isinstance(b, Traced):
            owner, _ = self.owner(self.labels.decode(a.labels)[0])
            if isinstance(owner, Scores):
                return self._apply(self.settle(a), b)
            return self._scores(a, Traced(b.labels.transpose(-1, -2), b.function))
        raise LayoutError("has a value on its right side that only attention may have")

    def baddbmm(
        self, mask: Known, a: Traced, b: Traced, *, beta: float = 1, alpha: float = 1
    ) -> Traced:
        """aten.baddbmm: a mask added to scores."""
        if not isinstance(mask, Known) or beta != 1:
            raise LayoutError("adds a value to scores; only a mask can be added")
        scores = self.matmul(a, b).then(lambda x: x * alpha + mask.value)
        return self.mask_scores(scores.labels, scores.function)

    def _linear(self, input: Traced | Known, weight: Known, bias: Known | None) -> Traced:
        if not isinstance(input, Traced):
            raise LayoutError("takes a tensor that does not depend on the tokens' values")
        if not isinstance(weight, Known) or not isinstance(bias, Known | None):
            raise LayoutError("has a weight that depends on the input")
        input, outputs = self.settle(input), weight.value.shape[0]
        rows, sample, token = self.labels.rows(input.labels)
        references = self._parameter(weight), bias and self._parameter(bias)
        owner, places = self.owner(rows)
        if isinstance(owner, Pooled) or (token == 0).all():
            return self._pooled(owner, places, references, sample)
        value, _ = self._value(rows)
        name = references[0].parameter.removesuffix(".weight")
        result, features = self._new(name, outputs)
        expanded = self._columns(references[0], value, places)
        self._append(fg.Linear(value, result, expanded, references[1]))
        return Traced(self.labels.take(features, sample, token))

    def _columns(self, weight: Reference, value: Value, places: Tensor) -> Reference:
        """The weight for all features of `value`, when it was for those at `places`."""
        if torch.equal(places, torch.arange(value.width)):
            return weight
        if len(places.unique()) != len(places):
            raise LayoutError("takes a feature twice")
        full = torch.full((len(weight.places), value.width), -1)
        full[:, places] = weight.places
        return Reference(weight.parameter, full)

    def _pooled(
        self,
        owner: Value | Scores | Pooled,
        places: Tensor,
        references: tuple[Reference, Reference | None],
        sample: Tensor,
    ) -> Traced:
        if not torch.equal(places, torch.arange(len(places))) or isinstance(owner, Scores):
            raise LayoutError("takes some features of the first token; it must take all")
        before = owner.layers if isinstance(owner, Pooled) else []
        value = owner.value if isinstance(owner, Pooled) else owner
        width = len(references[0].places)
        start = self._own(width, Pooled(value, [*before, fg.HostLayer(*references)]))
        return Traced(
            self.labels.take(start + torch.arange(width), sample, torch.zeros_like(sample))
        )

    def _parameter(self, known: Known) -> Reference:
        """A reference to a parameter, or to a tensor computed from some, which becomes one."""
        if known.parameter is not None and known.places is not None:
            return known.reference()
        if known.depends:
            raise LayoutError("has a weight that depends on the input")
        names = self.graph.parameters
        name = next(f"computed.{i}" for i in range(len(names) + 1) if f"computed.{i}" not in names)
        names[name] = known.value.detach()
        known.parameter = name
        known.places = torch.arange(known.value.numel()).view(known.value.shape)
        return known.reference()

    def layer_norm(
        self,
        input: Traced,
        shape: list[int],
        weight: Known | None = None,
        bias: Known | None = None,
        eps: float = 1e-5,
        *ignored: object,
    ) -> Traced:
        """aten.layer_norm over the last axis."""
        input = self.settle(input)
        rows, sample, token = self.labels.rows(input.labels)
        if list(shape) != [len(rows)]:
            raise LayoutError(f"must be over the last axis alone, not over {list(shape)}")
        value = self.whole(rows)
        references = weight and self._parameter(weight), bias and self._parameter(bias)
        name = references[0].parameter.removesuffix(".weight") if references[0] else "norm"
        result, features = self._new(name, value.width)
        self._append(fg.LayerNorm(value, result, *references, eps))
        return Traced(self.labels.take(features, sample, token))

    def add(self, a: Traced, b: Traced) -> Traced:
        """The sum of two values, of which one may be the same for all samples (positions)."""
        a, b = self.settle(a), self.settle(b)
        shape = torch.broadcast_shapes(a.labels.shape, b.labels.shape)
        (fa, sa, ta), (fb, sb, tb) = (
            self.labels.rows(each.labels.expand(shape)) for each in (a, b)
        )
        values = self.whole(fa), self.whole(fb)
        made = [self._made[value] for value in values]
        if values[0].width != values[1].width:
            raise LayoutError("adds values of different widths")
        if all(isinstance(each, fg.Embed) for each in made):
            return self._add_tables(made, (sa, ta), (sb, tb))
        if (ta != tb).any() or (sa != sb).any():
            raise LayoutError("adds different tokens to each other")
        result, features = self._new("sum", values[0].width)
        self._append(fg.Add(*values, result))
        return Traced(self.labels.take(features, sa, ta))

    def add_known(self, input: Traced, known: Known) -> Traced:
        """A value and a parameter: a bias, or positions added to embeddings."""
        input = self.settle(input)
        rows, sample, token = self.labels.rows(input.labels)
        value, reference = self.whole(rows), self._parameter(known)
        made, width = self._made[value], len(rows)
        if reference.places.numel() == width:
            if isinstance(made, fg.Linear) and made.bias is None:
                result, features = self._new(value.name, width)
                bias = Reference(reference.parameter, reference.places.reshape(width))
                self._append(fg.Linear(made.input, result, made.weight, bias))
                return Traced(self.labels.take(features, sample, token))
            raise LayoutError("adds a parameter to a result that has a bias already, or none")
        if not isinstance(made, fg.Embed):
            raise LayoutError(
                "adds a parameter that is no bias; positions can only be added to the embeddings"
            )
        table = self._position_table(reference, input.labels.shape, token)
        result, features = self._new("embeddings", width)
        self._append(fg.Embed(result, [*made.tables, table], made.given))
        return Traced(self.labels.take(features, sample, token))

    def output(self, name: str, traced: Traced) -> None:
        """A result of the model."""
        settled = self.settle(traced)
        rows, sample, token = self.labels.rows(settled.labels)
        owner, places = self.owner(rows)
        if isinstance(owner, Scores):
            raise LayoutError(OF_SCORES)
        if isinstance(owner, Pooled) or (token == 0).all():
            if not torch.equal(places, torch.arange(len(places))):
                raise LayoutError("takes some features of the first token; it must take all")
            pooled = owner if isinstance(owner, Pooled) else Pooled(owner, [])
            axes = 0 if sample.dim() else None, 0
            self.graph.outputs[name] = fg.Output(pooled.value, True, pooled.layers, axes)
            return
        self.graph.outputs[name] = fg.Output(self.whole(rows), axes=self._axes(sample, token))

    def _axes(self, sample: Tensor, token: Tensor) -> tuple[int | None, int]:
        """(sample axis or None, token axis) of all tokens of all samples."""
        tokens, both = (self.labels.tokens,), (self.labels.samples, self.labels.tokens)
        for shape, axes in ((tokens, (None, 0)), (both, (0, 1)), (both[::-1], (1, 0))):
            if token.shape == shape:
                wanted = self._positions(token.shape, *axes)
                if torch.equal(sample, wanted[0]) and torch.equal(token, wanted[1]):
                    return axes
        raise LayoutError("must have all tokens of all samples in order")


def _transposed(known: Known) -> Known:
    places = None if known.places is None else known.places.mT
    return Known(known.value.mT, known.parameter, places, known.depends)
