"""The compiler's intermediate form: integer layers on vectors, nothing of torch left.

A `Value` is a vector of 16-bit elements with one scale, present at every time step (`per_step`) or
once a run. Slices, concatenations and reshapes cost nothing: they only build a `View`, which names
for each logical feature the value and element that holds it. Operations are in execution order;
`evaluate.py` says what each of them computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..parameters import GruCellParameters, LinearParameters


@dataclass(eq=False)
class Value:
    """`elements` int16 values of one unit `scale`; `source` is the user's line, for messages."""

    name: str
    elements: int
    scale: float
    per_step: bool
    source: str = ""


@dataclass(eq=False)
class View:
    """Logical features in C order: feature i is element `indices[i]` of `values[owners[i]]`."""

    values: tuple[Value, ...]
    owners: np.ndarray
    indices: np.ndarray

    @staticmethod
    def of(value: Value) -> View:
        n = value.elements
        return View((value,), np.zeros(n, np.int64), np.arange(n))

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def per_step(self) -> bool:
        return any(value.per_step for value in self.values)

    @property
    def scale(self) -> float:
        """The largest of its values' scales: what an output, relu or last value has."""
        return max(value.scale for value in self.values)


@dataclass(eq=False)
class Input:
    """A user input. `columns` inputs arrive as int8 column inputs of scale 256·output.scale and
    feed products only; others arrive as 16-bit values."""

    output: Value
    columns: bool
    shape: tuple[int, ...]
    batch_axis: int | None
    time_axis: int | None
    optional: bool = False


@dataclass(eq=False)
class Linear:
    """`parameters.input_scale` applies to all features; the lowering rescales other producers."""

    input: View
    output: Value
    parameters: LinearParameters


@dataclass(eq=False)
class Gru:
    """All layers and directions of one nn.GRU: cells[layer][direction], and
    initial[layer·D + direction], None for zeros.

    `output` is per step: H elements per direction, forward first. `final[layer·D + direction]` are
    once-values: the last states.
    """

    input: View
    initial: tuple[View | None, ...]
    cells: tuple[tuple[GruCellParameters, ...], ...]
    output: Value
    final: tuple[Value, ...]


@dataclass(eq=False)
class Activation:
    """relu keeps the scale; sigmoid and tanh rescale to the table's input and give scale 2^-15."""

    kind: Literal["relu", "sigmoid", "tanh"]
    input: View
    output: Value


@dataclass(eq=False)
class Last:
    """The value of a per-step view at the last time step, as a once-value."""

    input: View
    output: Value


Operation = Input | Linear | Gru | Activation | Last


@dataclass(eq=False)
class Output:
    """A user output with its shape (-1 for batch and time)."""

    name: str
    view: View
    shape: tuple[int, ...]
    batch_axis: int | None
    time_axis: int | None


@dataclass(eq=False)
class Graph:
    operations: list[Operation] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
