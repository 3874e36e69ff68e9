"""From an exported torch graph to the compiler's `Graph`: one walk over the nodes.

Every tensor that comes from a user input is a tensor of labels (`labels.py`), so data movement is
executed by torch, not interpreted; `Builder` appends the layers. Whatever cannot be followed is
collected, to be reported at once with the user's lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves, tree_map

from .. import source
from . import operators
from .builder import Builder, InputSpec
from .labels import LayoutError, TimeAxisError


@dataclass
class Labelled:
    """A tensor of the model, as labels; `copied` when it no longer shares memory as in torch."""

    labels: torch.Tensor
    copied: bool = False


@dataclass(frozen=True)
class Constant:
    """A parameter or buffer: integers may be an index, but no operation takes one as a value."""

    name: str
    value: torch.Tensor | None = None

    @property
    def is_index(self) -> bool:
        return self.value is not None and not self.value.dtype.is_floating_point


class _Unknown:
    """The result of a node that was reported already."""


UNKNOWN = _Unknown()


@dataclass
class Importer:
    """A walk over exported nodes; `problems` are messages with the user's lines.

    `inputs` maps placeholders to user inputs, `constants` to tensors that the model's code holds.
    """

    builder: Builder
    inputs: Mapping[str, InputSpec]
    constants: Mapping[str, torch.Tensor]
    outputs: list[str]
    problems: list[str] = field(default_factory=list)
    wrong_time_axis: bool = False
    _known: dict[Node, Any] = field(default_factory=dict)

    def run(self, nodes: list[Node]) -> None:
        """Import `nodes`, in order."""
        for node in nodes:
            self.builder.line = source.of_node(node)
            try:
                self._known[node] = self._node(node)
            except LayoutError as error:
                self.wrong_time_axis |= isinstance(error, TimeAxisError)
                self._problem(f"{operator_name(node.target)} {error}")
                self._known[node] = UNKNOWN

    def _problem(self, message: str) -> None:
        self.problems.append(f"{message}\n    at {self.builder.line}")

    def _node(self, node: Node) -> Any:
        if node.op == "placeholder":
            if node.name in self.inputs:
                return Labelled(self.builder.input(self.inputs[node.name]))
            return Constant(str(node.target), self.constants.get(node.name))
        if node.op == "get_attr":
            return Constant(str(node.target))
        args = list(torch.fx.node.map_arg(node.args, self._known.__getitem__))
        kwargs = dict(torch.fx.node.map_arg(node.kwargs, self._known.__getitem__))
        if node.op == "output":
            return self._output(node, args[0])
        return self._call(node.target, args, kwargs)

    def _call(self, target: Any, args: list, kwargs: dict) -> Any:
        name = operator_name(target)
        if name in operators.IGNORED:
            return None
        handler = self._handler(name) or (
            self._python if not isinstance(target, torch._ops.OpOverload) else None
        )
        if handler is None:
            advice = operators.ADVICE.get(name)
            self._problem(f"operator {name} is not supported" + (f"; {advice}" if advice else ""))
            return UNKNOWN
        if has((args, kwargs), _Unknown):
            return UNKNOWN
        return handler(target, args, kwargs)

    def _handler(self, name: str) -> Callable[[Any, list, dict], Any] | None:
        if name in operators.MOVEMENT:
            return self._move
        if name in operators.IDENTITY:
            return lambda target, args, kwargs: args[0]
        if name in operators.ACTIVATIONS:
            return self._activation
        if name in operators.DROPOUT:
            return self._dropout
        if name in operators.ZEROS:
            return self._zeros
        return {"espalier.linear": self._linear, "espalier.gru": self._gru}.get(name)

    def _output(self, node: Node, results: Any) -> None:
        producers: Any = node.args[0]
        for name, producer, result in zip(self.outputs, producers, results, strict=True):
            if isinstance(producer, Node):
                self.builder.line = source.of_node(producer)
            if not isinstance(result, _Unknown):
                self.builder.output(name, self._labels_of(result))

    def _labels_of(self, argument: Any) -> torch.Tensor:
        if isinstance(argument, Labelled):
            return argument.labels
        if isinstance(argument, Constant):
            raise LayoutError(
                f"takes {argument.name!r} as a value; only the model's inputs can be one"
            )
        raise LayoutError(f"takes {argument!r}, which is no tensor of the model")

    def _python(self, target: Any, args: list, kwargs: dict) -> Any:
        """getitem, and arithmetic on sizes."""
        if operator_name(target) != "getitem" and has((args, kwargs), Labelled):
            raise LayoutError("is not supported")
        return target(*args, **kwargs)

    def _plain(self, argument: Any) -> Any:
        """An argument of data movement as torch takes it."""
        if isinstance(argument, Constant) and argument.is_index:
            return argument.value
        return self._labels_of(argument) if isinstance(argument, Labelled | Constant) else argument

    def _move(self, target: Any, args: list, kwargs: dict) -> Any:
        """Data movement by torch itself, on labels (which may lie otherwise in memory)."""
        name = operator_name(target)
        if name == "aten.squeeze":
            self._check_squeeze(*args)
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        plain_args, plain_kwargs = tree_map(self._plain, (args, kwargs))
        try:
            result = target(*plain_args, **plain_kwargs)
        except (RuntimeError, IndexError) as error:
            reason = str(error).split("\n")[0]
            steps = self.builder.labels.steps
            raise LayoutError(
                f"depends on a fixed length: with {steps} time steps, {reason}"
            ) from error
        copied = any(
            isinstance(leaf, Labelled) and leaf.copied for leaf in tree_leaves((args, kwargs))
        )
        return tree_map(lambda tensor: self._settled(tensor, copied), result)

    def _settled(self, result: Any, copied: bool) -> Any:
        if not isinstance(result, torch.Tensor):
            return result
        settled = self.builder.settle(result)
        return Labelled(settled, copied or settled is not result)

    def _check_squeeze(self, argument: Any, dims: Any = None) -> None:
        """A squeeze whose effect depends on the number of samples or steps is refused."""
        labels = self._labels_of(argument)
        chosen = range(labels.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
        _, *outer = self.builder.labels.axes(labels)
        if {dim % labels.ndim for dim in chosen} & set(outer):
            raise LayoutError("squeezes the batch or time axis; name the feature axes to squeeze")

    def _dropout(self, target: Any, args: list, kwargs: dict) -> Any:
        if kwargs.get("train", args[2] if len(args) > 2 else False):
            raise LayoutError("has training=True; pass training=self.training, or use nn.Dropout")
        return args[0]

    def _zeros(self, target: Any, args: list, kwargs: dict) -> Labelled:
        name = operator_name(target)
        if name == "aten.zeros_like":
            return Labelled(self.builder.labels.zeros(tuple(self._labels_of(args[0]).shape)))
        return Labelled(self.builder.labels.zeros(tuple(args[name == "aten.new_zeros"])))

    def _activation(self, target: Any, args: list, kwargs: dict) -> Labelled:
        name, labels = operator_name(target), self._labels_of(args[0])
        result = self.builder.activation(operators.ACTIVATIONS[name], labels)
        if not name.endswith("_"):
            return Labelled(result)
        if args[0].copied:
            raise LayoutError(
                "works in place on the last time step; use the form that gives a new tensor"
            )
        return Labelled(labels.copy_(result))  # views of the tensor see it too, as in torch

    def _linear(self, target: Any, args: list, kwargs: dict) -> Labelled:
        return Labelled(self.builder.linear(args[1], self._labels_of(args[0])))

    def _gru(self, target: Any, args: list, kwargs: dict) -> tuple[Labelled, Labelled]:
        x, h0, name, batch_first = args[0], args[1], args[2], args[6]
        state = None if h0 is None else self._labels_of(h0)
        y, h_n = self.builder.gru(name, self._labels_of(x), state, batch_first)
        return Labelled(y), Labelled(h_n)


def has(arguments: Any, kind: type) -> bool:
    """Whether a (nested) argument is a `kind`."""
    return any(isinstance(leaf, kind) for leaf in tree_leaves(arguments))


def operator_name(target: Any) -> str:
    """`aten.view` for torch.ops.aten.view.default; a Python function's own name."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    return getattr(target, "__name__", str(target))
