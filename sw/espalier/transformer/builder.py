"""Operations from traced tensors: what the walk calls for every operator that computes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import float_graph as fg
from .float_graph import FloatGraph, Reference, Value
from .functions import Function, recognize
from .labels import Labels, LayoutError
from .masks import classify
from .traced import Known, Pooled, Scores, Traced

REFUSED = -1e3
"""A score with less than this added is not allowed: models add -inf, -1e4, -1e9."""
OF_SCORES = (
    "works on attention weights, which only softmax and a product with values do; leave them out "
    "of the model's results"
)


@dataclass
class Builder:
    """A graph under construction; `lengths` are the tokens that the made-up samples have.

    Raises LayoutError for what cannot be done, with a message that follows the operator's name.
    """

    labels: Labels
    lengths: tuple[int, ...]
    graph: FloatGraph = field(default_factory=FloatGraph)
    line: str = ""
    _owners: list[tuple[int, int, Value | Scores | Pooled]] = field(default_factory=list)
    _made: dict[Value, fg.Operation] = field(default_factory=dict)
    _parts: dict[tuple, Value] = field(default_factory=dict)
    graph_inputs: dict[str, Tensor] = field(default_factory=dict)
    """Integer inputs by name, as they were made up."""

    # values and their labels

    def _own(self, width: int, owner: Value | Scores | Pooled) -> int:
        start = self.labels.features
        self.labels.features += width
        self._owners.append((start, width, owner))
        return start

    def _new(self, name: str, width: int) -> tuple[Value, Tensor]:
        """A value, and its features [width]."""
        names = {each.name for each in self._made}
        unique = (
            name
            if name not in names
            else next(f"{name}_{i}" for i in range(2, len(names) + 3) if f"{name}_{i}" not in names)
        )
        value = Value(unique, width, self.line)
        return value, self._own(width, value) + torch.arange(width)

    def _append(self, operation: fg.Operation) -> None:
        self.graph.operations.append(operation)
        self._made[operation.output] = operation

    def owner(self, features: Tensor) -> tuple[Value | Scores | Pooled, Tensor]:
        """What features [...] belong to, and their places in it."""
        low, high = int(features.min()), int(features.max())
        for start, width, owner in self._owners:
            if start <= low < start + width:
                if high >= start + width:
                    raise LayoutError("joins features of different results")
                return owner, features - start
        raise LayoutError("takes what is no result")

    def is_scores(self, labels: Tensor) -> bool:
        return isinstance(self.owner(self.labels.decode(labels)[0])[0], Scores)

    def _value(self, features: Tensor) -> tuple[Value, Tensor]:
        owner, places = self.owner(features)
        if isinstance(owner, Scores):
            raise LayoutError(OF_SCORES)
        if isinstance(owner, Pooled):
            raise LayoutError("takes the pooled token; only host layers do")
        return owner, places

    def whole(self, features: Tensor) -> Value:
        """The value of exactly these features [width]: of a linear layer any rows, in any order."""
        value, places = self._value(features)
        if torch.equal(places, torch.arange(value.width)):
            return value
        made, key = self._made[value], (value, tuple(places.tolist()))
        if not isinstance(made, fg.Linear):
            raise LayoutError("takes some features of a result; only a linear layer's can be split")
        if key not in self._parts:
            part, _ = self._new(value.name, len(places))
            part.source = value.source
            weight = Reference(made.weight.parameter, made.weight.places[places])
            bias = made.bias and Reference(made.bias.parameter, made.bias.places[places])
            self._append(fg.Linear(made.input, part, weight, bias))
            self._parts[key] = part
        return self._parts[key]

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

    def _scaled(self, value: Value, factor: float, labels: Tensor) -> Traced:
        """A value times a number: only embeddings are, by the host."""
        made = self._made[value]
        if not isinstance(made, fg.Embed) or made.given:
            raise LayoutError("is a multiplication by a number; fold it into a linear layer")
        _, sample, token = self.labels.rows(labels)
        result, features = self._new(value.name, value.width)
        tables = [fg.Table(t.rows, t.index, t.offset, t.factor * factor) for t in made.tables]
        self._append(fg.Embed(result, tables))
        return Traced(self.labels.take(features, sample, token))

    # the host's part

    def given(self, name: str, shape: torch.Size) -> Tensor:
        """Labels of the float input of a shape."""
        value, features = self._new(name, shape[-1])
        self._append(fg.Embed(value, given=name))
        return self.labels.take(features, *self._positions(shape[:-1], *self.graph.axes[name]))

    def embedding(self, weight: Known, indices: Known, *ignored: object) -> Traced | Known:
        """Rows of a table by ids, types or positions."""
        index, offset = self._index(indices)
        value, features = self._new("embeddings", weight.value.shape[1])
        self._append(fg.Embed(value, [fg.Table(weight.reference(), index, offset)]))
        if index in (None, "position"):
            shape = torch.broadcast_shapes(indices.value.shape, (self.labels.tokens,))
            sample = torch.zeros(shape, dtype=torch.int64)
            if len(shape) > 1 and shape[0] == self.labels.samples:
                sample = torch.arange(self.labels.samples)[:, None].expand(shape)
            token = torch.arange(self.labels.tokens).expand(shape)
        else:
            batch, axis = self.graph.axes[index]
            sample, token = self._positions(indices.value.shape, batch, axis)
        return Traced(self.labels.take(features, sample, token))

    def _positions(self, shape: torch.Size, batch: int | None, axis: int) -> tuple[Tensor, Tensor]:
        sample = torch.arange(self.labels.samples if batch is not None else 1)
        token = torch.arange(self.labels.tokens)
        if batch is None:
            return torch.zeros(shape, dtype=torch.int64), token.expand(shape)
        if (batch, axis) == (0, 1):
            return sample[:, None].expand(shape), token.expand(shape)
        return sample.expand(shape), token[:, None].expand(shape)

    def _index(self, indices: Known) -> tuple[str | None, int]:
        """(input's name, 0), ("position", offset), (None, row): what an index tensor is."""
        value = indices.value
        for name in indices.depends:
            given = self.graph_inputs.get(name)
            if given is not None and given.shape == value.shape and torch.equal(given, value):
                return name, 0
        if indices.depends:
            names = ", ".join(sorted(indices.depends))
            raise LayoutError(
                f"has an index computed from {names}; it must be the input itself, "
                "the position or a constant"
            )
        if (value == value.flatten()[0]).all():
            return None, int(value.flatten()[0])
        if value.shape[-1] == self.labels.tokens:
            offset = int(value.flatten()[0])
            if (value == offset + torch.arange(self.labels.tokens)).all():
                return "position", offset
        raise LayoutError("has an index that is neither an input, nor the position, nor a constant")

    # operations

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

    def _add_tables(self, made: list, first: tuple, second: tuple) -> Traced:
        if (first[1] != second[1]).any():
            raise LayoutError("adds different tokens to each other")
        inputs = [each.given for each in made if each.given]
        if len(inputs) > 1:
            raise LayoutError("adds two float inputs")
        result, features = self._new("embeddings", made[0].output.width)
        tables = [*made[0].tables, *made[1].tables]
        self._append(fg.Embed(result, tables, inputs[0] if inputs else None))
        depends = [
            any(t.index not in (None, "position") for t in each.tables) or each.given
            for each in made
        ]
        sample = first[0] if depends[0] or not depends[1] else second[0]
        return Traced(self.labels.take(features, sample, first[1]))

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

    def _position_table(self, reference: Reference, shape: torch.Size, token: Tensor) -> fg.Table:
        """Positions given as a slice of a parameter [..., positions, width]."""
        parameter, width = self.graph.parameters[reference.parameter], shape[-1]
        places = reference.places.expand(shape)
        offset = int(places.flatten()[0]) // width
        expected = (offset + token)[..., None] * width + torch.arange(width)
        if parameter.shape[-1] != width or (places != expected).any():
            raise LayoutError("adds a parameter that is no table of positions [positions, width]")
        rows = torch.arange(parameter.numel()).view(-1, width)
        return fg.Table(Reference(reference.parameter, rows), "position", offset)

    # attention

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
        input = self.settle(input)
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

    # results

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


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else x + mask
