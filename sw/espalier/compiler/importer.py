"""From an exported torch graph to the compiler's `Graph`.

The importer walks the nodes once. Every tensor that comes from a user input is a tensor of labels (`labels.py`), so data
movement is executed, not interpreted; layers read from the labels which features they get, and append operations. Whatever
cannot be followed is collected, and reported at once with the user's lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from torch.utils._pytree import tree_map

from . import operators, source
from .ir import Activation, Graph, Gru, Input, Last, Linear, Output, Value, View
from .labels import ZERO, LayoutError, Labels

STATE_SCALE = 2.0**-15
UNKNOWN_SCALE = float("nan")
"""Until `scales.resolve` has seen the consumers."""


@dataclass(frozen=True)
class InputSpec:
    """A user input: the model's name for it, its shape, and which axes are batch and time."""

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None
    time_axis: int | None


@dataclass
class Labelled:
    """A tensor of the model, as labels."""

    labels: torch.Tensor


@dataclass(frozen=True)
class Constant:
    """A parameter or buffer of the model: integers may be an index, but no operation may take one as a value."""

    name: str
    value: torch.Tensor | None = None

    @property
    def is_index(self) -> bool:
        return self.value is not None and not self.value.dtype.is_floating_point


class _Unknown:
    """The result of an operator that was reported already."""


UNKNOWN = _Unknown()


@dataclass
class Importer:
    """One walk over a graph. `root` holds the quantized modules by name; `problems` collects messages."""

    root: torch.nn.Module
    labels: Labels
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)
    graph: Graph = field(default_factory=Graph)
    problems: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    last: dict[int, int] = field(default_factory=dict)
    line: str = ""

    def run(
        self, nodes: list[Node], inputs: Mapping[str, InputSpec], output_names: list[str]
    ) -> None:
        """Import `nodes`; `inputs` maps placeholders to user inputs, in order. Raises nothing: see `problems`."""
        known: dict[Node, Any] = {}
        for node in nodes:
            self.line = source.of_node(node)
            try:
                known[node] = self._node(node, known, inputs, output_names)
            except LayoutError as error:
                self._problem(f"{operator_name(node.target)} {error}")
                known[node] = UNKNOWN

    def _problem(self, message: str) -> None:
        self.problems.append(f"{message}\n    at {self.line}")

    def _node(
        self, node: Node, known: dict, inputs: Mapping[str, InputSpec], output_names: list[str]
    ) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node, inputs)
        args = torch.fx.node.map_arg(node.args, known.__getitem__)
        kwargs = torch.fx.node.map_arg(node.kwargs, known.__getitem__)
        if node.op == "output":
            return self._outputs(args[0], output_names)
        if node.op == "get_attr":
            return Constant(str(node.target))
        return self._call(node, list(args), dict(kwargs))

    def _call(self, node: Node, args: list, kwargs: dict) -> Any:
        name = operator_name(node.target)
        if name in operators.IGNORED:
            return None
        if not name.startswith(("aten.", "espalier.")):
            return self._python(node, name, args, kwargs)
        handler = self._handler(name)
        if handler is None:
            advice = operators.ADVICE.get(name)
            self._problem(f"operator {name} is not supported" + (f" ({advice})" if advice else ""))
            return UNKNOWN
        if has(args, _Unknown) or has(kwargs, _Unknown):
            return UNKNOWN
        return handler(node, args, kwargs)

    def _handler(self, name: str) -> Any:
        if name in operators.MOVEMENT or name == "aten.sym_size":
            return self._move
        if name in operators.IDENTITY:
            return lambda node, args, kwargs: args[0]
        if name in operators.ACTIVATIONS:
            return lambda node, args, kwargs: self._activation(
                node, operators.ACTIVATIONS[name], args[0]
            )
        if name in operators.DROPOUT:
            return self._dropout
        if name in operators.ZEROS:
            return lambda node, args, kwargs: self._zeros(name, args)
        return {"espalier.linear": self._linear, "espalier.gru": self._gru}.get(name)

    # Inputs, values and views

    def _placeholder(self, node: Node, inputs: Mapping[str, InputSpec]) -> Any:
        spec = inputs.get(node.name)
        if spec is None:
            return Constant(str(node.target), self.constants.get(node.name))
        outer = (spec.batch_axis, spec.time_axis)
        features = [size for axis, size in enumerate(spec.shape) if axis not in outer]
        shape = tuple(-1 if axis in outer else size for axis, size in enumerate(spec.shape))
        value, ids = self._value(
            spec.name, int(np.prod(features)), UNKNOWN_SCALE, spec.time_axis is not None
        )
        self.graph.operations.append(Input(value, False, shape, spec.batch_axis, spec.time_axis))
        return Labelled(self.labels.tensor(ids.reshape(features), spec.batch_axis, spec.time_axis))

    def _value(
        self, name: str, elements: int, scale: float, per_step: bool
    ) -> tuple[Value, np.ndarray]:
        """A new value of a name not taken yet, with the ids of its elements."""
        taken = {value.name for value in self.values}
        unique = next(
            n for n in (name, *(f"{name}.{i}" for i in range(1, len(taken) + 2))) if n not in taken
        )
        value = Value(unique, elements, scale, per_step, self.line)
        base = self.bases[-1] + self.values[-1].elements if self.values else 0
        self.values.append(value)
        self.bases.append(base)
        return value, base + np.arange(elements)

    def _view(self, ids: np.ndarray) -> View:
        """The view of feature ids, in C order."""
        ids = ids.ravel()
        if (ids == ZERO).any():
            raise LayoutError("takes a constant; constants can only be a GRU's initial state")
        owners = np.searchsorted(self.bases, ids, side="right") - 1
        used, numbers = np.unique(owners, return_inverse=True)
        indices = ids - np.asarray(self.bases)[owners]
        return View(tuple(self.values[i] for i in used), numbers.astype(np.int64), indices)

    def _labels_of(self, argument: Any) -> torch.Tensor:
        if isinstance(argument, Labelled):
            return argument.labels
        if isinstance(argument, Constant):
            raise LayoutError(
                f"takes {argument.name!r} as a value; only inputs of the model can be one"
            )
        raise LayoutError(f"takes {argument!r}, which is no tensor of the model")

    # Data movement

    def _python(self, node: Node, name: str, args: list, kwargs: dict) -> Any:
        """getitem and arithmetic on sizes."""
        if has(args, _Unknown):
            return UNKNOWN
        if name == "getitem" or not has(args, Labelled):
            return node.target(*args, **kwargs)
        self._problem(f"operator {name} is not supported")
        return UNKNOWN

    def _move(self, node: Node, args: list, kwargs: dict) -> Any:
        self._check_squeeze(node, args)
        target = (
            torch.ops.aten.reshape.default
            if "aten.view.default" in str(node.target)
            else node.target
        )
        plain_args, plain_kwargs = tree_map(self._plain, (args, kwargs))
        try:
            result = target(*plain_args, **plain_kwargs)
        except (RuntimeError, IndexError) as error:
            reason = str(error).split("\n")[0]
            raise LayoutError(
                f"depends on a fixed length: with {self.labels.steps} time steps, {reason}"
            ) from error
        return tree_map(
            lambda r: Labelled(self._settle(r)) if isinstance(r, torch.Tensor) else r, result
        )

    def _plain(self, argument: Any) -> Any:
        """An argument of data movement as torch takes it."""
        if isinstance(argument, Constant) and argument.is_index:
            return argument.value
        return self._labels_of(argument) if isinstance(argument, Labelled | Constant) else argument

    def _check_squeeze(self, node: Node, args: list) -> None:
        """A squeeze whose effect depends on the number of samples or steps is refused."""
        if operator_name(node.target) != "aten.squeeze":
            return
        shape = self._labels_of(args[0]).shape
        dims = (
            [args[1]]
            if len(args) > 1 and isinstance(args[1], int)
            else args[1]
            if len(args) > 1
            else range(len(shape))
        )
        _, batch_axis, time_axis = self.labels.axes(self._labels_of(args[0]))
        if {dim % len(shape) for dim in dims} & {batch_axis, time_axis}:
            raise LayoutError("squeezes the batch or time axis; name the feature axes to squeeze")

    def _settle(self, labels: torch.Tensor) -> torch.Tensor:
        """Turn elements of the last time step into once-values; other choices of steps raise LayoutError."""
        if self.labels.steps_used(labels) != "last":
            return labels
        ids, b, t = self.labels.decode(labels)
        moving = np.unique(ids[t != self.labels.any_step])
        new = np.array([i for i in moving if i not in self.last], np.int64)
        if len(new):
            value, fresh = self._value("last", len(new), UNKNOWN_SCALE, False)
            self.graph.operations.append(Last(self._view(new), value))
            self.last.update(zip(new.tolist(), fresh.tolist(), strict=True))
        table = np.array([self.last[i] for i in moving.tolist()])
        ids = np.where(
            t != self.labels.any_step,
            table[np.searchsorted(moving, ids).clip(0, len(moving) - 1)],
            ids,
        )
        return self.labels.encode(ids, b, np.array(self.labels.any_step))

    def _dropout(self, node: Node, args: list, kwargs: dict) -> Any:
        if kwargs.get("train", args[2] if len(args) > 2 else False):
            raise LayoutError(
                "is a dropout of training=True; pass training=self.training, or use nn.Dropout"
            )
        return args[0]

    def _zeros(self, name: str, args: list) -> Labelled:
        shape = {"aten.zeros": lambda: args[0], "aten.new_zeros": lambda: args[1]}.get(name)
        return Labelled(
            self.labels.zeros(tuple(shape() if shape else self._labels_of(args[0]).shape))
        )

    # Layers

    def _linear(self, node: Node, args: list, kwargs: dict) -> Labelled:
        """One operation for each different feature vector along the last axis (a single one for [B, T, features])."""
        labels, name = self._labels_of(args[0]), args[1]
        parameters = self.root.get_submodule(name).integer()
        if labels.shape[-1] != parameters.matrix.weight.shape[1]:
            columns = parameters.matrix.weight.shape[1]
            raise LayoutError(
                f"gets {labels.shape[-1]} features along its last axis, not {columns}"
            )
        ids, b, t = self.labels.rows(labels)
        vectors, first, which = np.unique(ids, axis=0, return_index=True, return_inverse=True)
        outputs = np.empty((len(vectors), len(parameters.rows)), np.int64)
        for number in np.argsort(first):
            view = self._view(vectors[number])
            value, outputs[number] = self._value(
                name, outputs.shape[1], parameters.output_scale, view.per_step
            )
            self.graph.operations.append(Linear(view, value, parameters))
        result = self.labels.encode(outputs[which.ravel()], b[:, None], t[:, None])
        return Labelled(result.reshape(*labels.shape[:-1], outputs.shape[1]))

    def _gru(self, node: Node, args: list, kwargs: dict) -> tuple[Labelled, Labelled]:
        x, h0, name, batch_first = self._labels_of(args[0]), args[1], args[2], args[6]
        cells = self.root.get_submodule(name).integer()
        hidden, directions = cells[0][0].hidden_size, len(cells[0])
        batched = x.ndim == 3
        batch_axis, time_axis = ((0, 1) if batch_first else (1, 0)) if batched else (None, 0)
        if x.shape[time_axis] != self.labels.steps or self.labels.steps_used(x) == "none":
            raise LayoutError(
                "must run a GRU over the time axis; name it with sequence={input: axis}"
            )
        ids = self.labels.features(x, batch_axis, time_axis)
        initial = self._initial(h0, len(cells) * directions, batched)
        view = self._view(ids)
        output, y = self._value(name, directions * hidden, STATE_SCALE, True)
        finals = [
            self._value(f"{name}.h{i}", hidden, STATE_SCALE, False) for i in range(len(initial))
        ]
        self.graph.operations.append(
            Gru(view, initial, cells, output, tuple(value for value, _ in finals))
        )
        samples = self._samples(x, h0, batch_axis)
        steps = np.expand_dims(
            np.arange(self.labels.steps), tuple(i for i in range(x.ndim) if i != time_axis)
        )
        y_labels = self.labels.encode(np.broadcast_to(y, (*x.shape[:-1], len(y))), samples, steps)
        h_ids = np.stack([ids for _, ids in finals])  # [layers·D, H]
        h_ids = np.repeat(h_ids[:, None], x.shape[batch_axis], 1) if batched else h_ids
        h_samples = samples.reshape(1, -1, 1) if batched else samples
        return Labelled(y_labels), Labelled(
            self.labels.encode(h_ids, h_samples, np.array(self.labels.any_step))
        )

    def _samples(self, x: torch.Tensor, h0: Any, batch_axis: int | None) -> np.ndarray:
        """Sample labels of a GRU's output, to broadcast over it: counted if its inputs are, else `any`."""
        parts = [x, *([h0.labels] if isinstance(h0, Labelled) else [])]
        counted = any(
            (self.labels.decode(part)[1] != self.labels.any_sample).any() for part in parts
        )
        if not counted or batch_axis is None:
            return np.array(self.labels.any_sample)
        return np.expand_dims(
            np.arange(self.labels.batch), tuple(i for i in range(x.ndim) if i != batch_axis)
        )

    def _initial(self, h0: Any, count: int, batched: bool) -> tuple[View | None, ...]:
        """Views of an initial state [layers·D, (B,) H], None where it is zero."""
        if h0 is None:
            return (None,) * count
        labels = self._labels_of(h0)
        if self.labels.steps_used(labels) != "none":
            raise LayoutError("has an initial state that changes with time")
        ids = self.labels.features(labels, 1 if batched else None, None)
        return tuple(None if (row == ZERO).all() else self._view(row) for row in ids)

    def _activation(self, node: Node, kind: Any, argument: Any) -> Labelled:
        """Elementwise: every element once, wherever and however often it lies in the tensor."""
        labels = self._labels_of(argument)
        ids, b, t = self.labels.decode(labels)
        present, which = np.unique(ids, return_inverse=True)
        scale = UNKNOWN_SCALE if kind == "relu" else STATE_SCALE
        results = np.empty_like(present)
        per_step = np.array([value.per_step for value in self.values])
        owners = np.searchsorted(self.bases, present, side="right") - 1
        for chosen in (per_step[owners], ~per_step[owners]):
            if chosen.any():
                view = self._view(present[chosen])
                value, results[chosen] = self._value(kind, len(view), scale, view.per_step)
                self.graph.operations.append(Activation(kind, view, value))
        result = self.labels.encode(results[which].reshape(ids.shape), b, t)
        if operator_name(node.target).endswith("_"):
            result = labels.copy_(result)  # views of the tensor see it too, as in torch
        return Labelled(result)

    def _outputs(self, results: Any, names: list[str]) -> None:
        for name, result in zip(names, results, strict=True):
            if isinstance(result, _Unknown):
                continue
            labels = self._labels_of(result)
            ids, batch_axis, time_axis = self.labels.axes(labels)
            shape = tuple(
                -1 if a in (batch_axis, time_axis) else s for a, s in enumerate(labels.shape)
            )
            self.graph.outputs.append(Output(name, self._view(ids), shape, batch_axis, time_axis))


def has(arguments: Any, kind: type) -> bool:
    """Whether a (nested) argument is a `kind`."""
    if isinstance(arguments, dict):
        return has(list(arguments.values()), kind)
    if isinstance(arguments, list | tuple):
        return any(has(argument, kind) for argument in arguments)
    return isinstance(arguments, kind)


def operator_name(target: Any) -> str:
    """`aten.view` for torch.ops.aten.view.default; a Python function's own name."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    return getattr(target, "__name__", str(target))
