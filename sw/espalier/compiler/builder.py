"""A graph under construction: operations that read and give labelled tensors (`labels.py`).

Every element of every value has an id; a layer finds out from its input's labels which elements it
gets, appends its operation, and labels its output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from ..spec.numerics import GATE_SCALE
from .ir import Activation, Graph, Gru, Input, Last, Linear, Output, Value, View
from .labels import ZERO, Labels, LayoutError, TimeAxisError

UNKNOWN_SCALE = float("nan")
"""Until `scales.resolve` has seen the consumers."""


@dataclass(frozen=True)
class InputSpec:
    """A user input: the model's name for it, its shape, and which axes are batch and time."""

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None
    time_axis: int | None

    @property
    def features(self) -> list[int]:
        """Sizes of the axes that are neither batch nor time."""
        return [
            size
            for axis, size in enumerate(self.shape)
            if axis not in (self.batch_axis, self.time_axis)
        ]


@dataclass
class Builder:
    """The graph so far. `root` holds the quantized modules by name; `line` is the user's line now.

    All methods raise LayoutError when a tensor's layout cannot be followed.
    """

    root: torch.nn.Module
    labels: Labels
    graph: Graph = field(default_factory=Graph)
    line: str = ""
    _values: list[Value] = field(default_factory=list)
    _bases: list[int] = field(default_factory=list)
    _last: dict[int, int] = field(default_factory=dict)

    def input(self, spec: InputSpec) -> torch.Tensor:
        """A user input, in the shape of its example but for batch and time."""
        value, ids = self._value(
            spec.name, int(np.prod(spec.features)), UNKNOWN_SCALE, spec.time_axis is not None
        )
        outer = (spec.batch_axis, spec.time_axis)
        shape = tuple(-1 if axis in outer else size for axis, size in enumerate(spec.shape))
        self.graph.operations.append(Input(value, False, shape, *outer))
        return self.labels.tensor(ids.reshape(spec.features), *outer)

    def output(self, name: str, labels: torch.Tensor) -> None:
        """A user output; samples and steps must lie in order along one axis each."""
        ids, batch_axis, time_axis = self.labels.axes(labels)
        shape = tuple(
            -1 if axis in (batch_axis, time_axis) else s for axis, s in enumerate(labels.shape)
        )
        self.graph.outputs.append(Output(name, self._view(ids), shape, batch_axis, time_axis))

    def settle(self, labels: torch.Tensor) -> torch.Tensor:
        """Elements of the last time step become once-values; other choices of steps are errors."""
        if self.labels.steps_used(labels) != "last":
            return labels
        ids, b, t = self.labels.decode(labels)
        timed = t != self.labels.any_step
        ids[timed] = self._last_values(ids[timed])
        return self.labels.encode(ids, b, np.array(self.labels.any_step))

    def _last_values(self, ids: np.ndarray) -> np.ndarray:
        """Ids of the last values of `ids`, computed once for each."""
        present, which = np.unique(ids, return_inverse=True)
        new = np.array([i for i in present.tolist() if i not in self._last], np.int64)
        if len(new):
            value, fresh = self._value("last", len(new), UNKNOWN_SCALE, False)
            self.graph.operations.append(Last(self._view(new), value))
            self._last.update(zip(new.tolist(), fresh.tolist(), strict=True))
        return np.array([self._last[i] for i in present.tolist()])[which]

    def linear(self, name: str, labels: torch.Tensor) -> torch.Tensor:
        """nn.Linear along the last axis: one operation for each different vector of features.

        That is a single one for [B, T, features], and one per group for [B, T, groups, features].
        """
        parameters = self._integers(name)
        rows, columns = parameters.matrix.weight.shape
        ids, b, t = self.labels.rows(labels)
        if ids.shape[1] != columns:
            raise LayoutError(f"gets {ids.shape[1]} features along its last axis, not {columns}")
        vectors, first, which = np.unique(ids, axis=0, return_index=True, return_inverse=True)
        outputs = np.empty((len(vectors), rows), np.int64)
        for number in np.argsort(first):
            view = self._view(vectors[number])
            value, outputs[number] = self._value(
                name or "linear", rows, parameters.output_scale, view.per_step
            )
            self.graph.operations.append(Linear(view, value, parameters))
        result = self.labels.encode(outputs[which.ravel()], b[:, None], t[:, None])
        return result.reshape(*labels.shape[:-1], rows)

    def _integers(self, name: str) -> Any:
        """What the quantized module called `name` hands over."""
        module: Any = self.root.get_submodule(name)
        return module.integer()

    def activation(
        self, kind: Literal["relu", "sigmoid", "tanh"], labels: torch.Tensor
    ) -> torch.Tensor:
        """Elementwise: every element once, wherever and however often it lies in the tensor."""
        ids, b, t = self.labels.decode(labels)
        present, which = np.unique(ids, return_inverse=True)
        scale = UNKNOWN_SCALE if kind == "relu" else GATE_SCALE
        results = np.empty_like(present)
        per_step = np.array([self._values[owner].per_step for owner in self._owners(present)])
        for chosen in (per_step, ~per_step):
            if chosen.any():
                view = self._view(present[chosen])
                value, results[chosen] = self._value(kind, len(view), scale, view.per_step)
                self.graph.operations.append(Activation(kind, view, value))
        return self.labels.encode(results[which].reshape(ids.shape), b, t)

    def gru(
        self, name: str, x: torch.Tensor, h0: torch.Tensor | None, batch_first: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """nn.GRU on x [T, B, I], [B, T, I] if batch_first, or [T, I]; gives (y, h_n)."""
        cells = self._integers(name)
        hidden, directions = cells[0][0].hidden_size, len(cells[0])
        batch_axis, time_axis = ((0, 1) if batch_first else (1, 0)) if x.ndim == 3 else (None, 0)
        if x.shape[time_axis] != self.labels.steps or self.labels.steps_used(x) == "none":
            raise TimeAxisError("must run over the time axis; name it with sequence={input: axis}")
        view = self._view(self.labels.features(x, batch_axis, time_axis))
        initial = self._initial(h0, len(cells) * directions, batch_axis is not None)
        name = name or "gru"
        output, y = self._value(name, directions * hidden, GATE_SCALE, True)
        finals = [
            self._value(f"{name}.h{i}", hidden, GATE_SCALE, False) for i in range(len(initial))
        ]
        self.graph.operations.append(
            Gru(view, initial, cells, output, tuple(value for value, _ in finals))
        )
        h_n = np.stack([ids for _, ids in finals])  # [layers·D, H]
        return self._gru_labels(y, h_n, x, h0, batch_axis)

    def _gru_labels(
        self, y: np.ndarray, h_n: np.ndarray, x: torch.Tensor, h0: torch.Tensor | None,
        batch_axis: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Labels of a GRU's outputs: y [H] and h_n [layers·D, H] are ids, x and h0 its inputs."""
        counted = any(self._has_samples(part) for part in (x, h0) if part is not None)
        size = 1 if batch_axis is None else x.shape[batch_axis]
        sample = np.arange(size) if counted else np.full(size, self.labels.any_sample)
        step, always = np.arange(self.labels.steps), np.array(self.labels.any_step)
        y_labels = self.labels.encode(y, sample[:, None, None], step[:, None])  # [B, T, D·H]
        h_labels = self.labels.encode(h_n[:, None], sample[:, None], always)  # [layers·D, B, H]
        if batch_axis is None:
            return y_labels[0], h_labels[:, 0]
        return y_labels if batch_axis == 0 else y_labels.transpose(0, 1).contiguous(), h_labels

    def _has_samples(self, labels: torch.Tensor) -> bool:
        return bool((self.labels.decode(labels)[1] != self.labels.any_sample).any())

    def _initial(
        self, h0: torch.Tensor | None, count: int, batched: bool
    ) -> tuple[View | None, ...]:
        """Views of an initial state [layers·D, (B,) H], None where it is zero."""
        if h0 is None:
            return (None,) * count
        if self.labels.steps_used(h0) != "none":
            raise LayoutError("has an initial state that changes with time")
        ids = self.labels.features(h0, 1 if batched else None, None)
        return tuple(None if (row == ZERO).all() else self._view(row) for row in ids)

    def _value(
        self, name: str, elements: int, scale: float, per_step: bool
    ) -> tuple[Value, np.ndarray]:
        """A new value, of a name not taken yet, with the ids of its elements."""
        taken = {value.name for value in self._values}
        candidates = (name, *(f"{name}.{i}" for i in range(1, len(taken) + 1)))
        unique = next(candidate for candidate in candidates if candidate not in taken)
        value = Value(unique, elements, scale, per_step, self.line)
        base = self._bases[-1] + self._values[-1].elements if self._values else 0
        self._values.append(value)
        self._bases.append(base)
        return value, base + np.arange(elements)

    def _owners(self, ids: np.ndarray) -> np.ndarray:
        """Number of the value that each id belongs to."""
        if (ids == ZERO).any():
            raise LayoutError("takes a constant; constants can only be a GRU's initial state")
        return np.searchsorted(self._bases, ids, side="right") - 1

    def _view(self, ids: np.ndarray) -> View:
        """The view of feature ids, in C order."""
        ids = ids.ravel()
        owners = self._owners(ids)
        used, numbers = np.unique(owners, return_inverse=True)
        indices = ids - np.asarray(self._bases)[owners]
        return View(tuple(self._values[i] for i in used), numbers.astype(np.int64), indices)
