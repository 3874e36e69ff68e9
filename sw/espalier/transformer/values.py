"""The graph under construction: which features of the labels belong to which result."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import float_graph as fg
from .float_graph import FloatGraph, Reference, Value
from .labels import Labels, LayoutError
from .traced import Pooled, Scores

OF_SCORES = (
    "works on attention weights, which only softmax and a product with values do; leave them out "
    "of the model's results"
)


@dataclass
class Values:
    """A graph, and the owners of all features; `lengths` are the tokens that the made-up samples
    have.

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
