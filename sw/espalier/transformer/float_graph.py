"""A transformer as float operations on tokens: what was read from the user's model.

Every `Value` is [tokens, width] of one sample; parameters are named as in the user's model. The
integer twin is `espalier.tokens.graph`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import EspalierError


@dataclass(eq=False)
class Value:
    """[tokens, width] floats; `source` is the user's line."""

    name: str
    width: int
    source: str = ""


@dataclass(frozen=True, eq=False)
class Reference:
    """Elements of a parameter: value = parameter.flatten()[places]; places = -1 stands for 0."""

    parameter: str
    places: Tensor
    """int64, in the shape of the result"""

    @cached_property
    def whole(self) -> bool:
        """Whether these are the first elements in their order."""
        flat = self.places.reshape(-1)
        return bool((flat == torch.arange(len(flat))).all())

    def of(self, parameters: dict[str, Tensor]) -> Tensor:
        """The elements, with gradients."""
        flat = parameters[self.parameter].reshape(-1)
        if self.whole:
            return flat[: self.places.numel()].view(self.places.shape)
        found = flat[self.places.clamp(min=0)]
        return torch.where(self.places < 0, torch.zeros_like(found), found)

    def __getitem__(self, rows: Any) -> Reference:
        return Reference(self.parameter, self.places[rows])


@dataclass(eq=False)
class Table:
    """Rows of a parameter [rows, width] that the host adds to every token.

    `index` is the name of an integer input; "position" for offset + the token's number; or None
    for row `offset` for all tokens. Rows are multiplied by `factor`.
    """

    rows: Reference
    index: str | None
    offset: int = 0
    factor: float = 1.0


@dataclass(eq=False)
class Embed:
    """The host's part: the sum of tables, and of the float input `given` if there is one."""

    output: Value
    tables: list[Table] = field(default_factory=list)
    given: str | None = None


@dataclass(eq=False)
class Linear:
    """output = input @ weight.T + bias; weight [outputs, inputs]."""

    input: Value
    output: Value
    weight: Reference
    bias: Reference | None


@dataclass(eq=False)
class LayerNorm:
    """Over the width, with factor and offset [width] (None: 1 and 0)."""

    input: Value
    output: Value
    weight: Reference | None
    bias: Reference | None
    eps: float


@dataclass(eq=False)
class Activation:
    """One of `functions.FUNCTIONS`, or "relu"."""

    function: str
    input: Value
    output: Value


@dataclass(eq=False)
class Add:
    """a + b."""

    a: Value
    b: Value
    output: Value


@dataclass(eq=False)
class Attention:
    """Softmax of scale·q·k over the tokens that each may see, times v; heads one after another."""

    query: Value
    key: Value
    value: Value
    output: Value
    heads: int
    head_size: int
    scale: float
    causal: bool


Operation = Embed | Linear | LayerNorm | Activation | Add | Attention


@dataclass(eq=False)
class HostLayer:
    """What the host does with a pooled token: activation(weight @ x + bias)."""

    weight: Reference
    bias: Reference | None
    activation: str | None = None


@dataclass(eq=False)
class Output:
    """A result by the name in the user's model.

    first: only of the first token, [width]; `layers` are then applied by the host, one by one.
    """

    value: Value
    first: bool = False
    layers: list[HostLayer] = field(default_factory=list)
    axes: tuple[int | None, int] = (None, 0)
    """Where the model has samples and tokens in it."""


@dataclass(frozen=True)
class MaskInput:
    """The input that says which tokens count: `kept` is its value (as a bool) for those."""

    name: str
    kept: bool


@dataclass(eq=False)
class FloatGraph:
    """Operations in order, one Embed first.

    inputs, integers: names of all inputs, and of those that are indices.
    axes: (batch axis or None, token axis) of every input.
    most_tokens: 0 for no bound.
    """

    operations: list[Operation] = field(default_factory=list)
    outputs: dict[str, Output] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    integers: list[str] = field(default_factory=list)
    axes: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    mask: MaskInput | None = None
    host_norm: LayerNorm | None = None
    """Done by the host on the sum of tables, which nothing else uses."""
    most_tokens: int = 0

    @property
    def embed(self) -> Embed:
        first = self.operations[0]
        if not isinstance(first, Embed):
            raise EspalierError("a graph of tokens must begin with its input; this one does not")
        return first

    @property
    def linears(self) -> list[Linear]:
        return [each for each in self.operations if isinstance(each, Linear)]


def inputs_of(operation: Operation) -> list[Value]:
    """The values that an operation takes, in their order."""
    match operation:
        case Add(a=a, b=b):
            return [a, b]
        case Attention(query=q, key=k, value=v):
            return [q, k, v]
        case Embed():
            return []
        case _:
            return [operation.input]


def users(graph: FloatGraph, value: Value) -> list[Operation]:
    """The operations that take `value`."""
    return [each for each in graph.operations if value in inputs_of(each)]
