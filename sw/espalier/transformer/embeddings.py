"""The host's part: tables by ids, types and positions, their sum, and float inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from . import float_graph as fg
from .float_graph import Reference, Value
from .labels import LayoutError
from .traced import Known, Traced
from .values import Values


class EmbeddingBuilder(Values):
    """Sums of tables are one operation, which grows as the walk goes on."""

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
