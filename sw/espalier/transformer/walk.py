"""From an exported torch graph to a `FloatGraph`: one walk over the ATen operators.

What comes from tokens is traced by labels (`labels.py`), and data movement is done by torch on
them. Everything else - masks, positions, weights - is computed as the model does, with samples
that were made up for it (`probes.py`). What cannot be followed is collected with the user's lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map

from .. import source
from . import operators
from .builder import Builder
from .labels import LayoutError
from .traced import UNKNOWN, Known, Traced, _Unknown, execute, has
from .values import OF_SCORES


@dataclass
class Walk:
    """A walk over exported nodes.

    placeholders: what each placeholder is: a Known, or the Traced float input.
    problems: messages with the user's lines.
    """

    builder: Builder
    placeholders: Mapping[str, Any]
    outputs: list[str]
    problems: list[str] = field(default_factory=list)
    _known: dict[Node, Any] = field(default_factory=dict)

    def run(self, nodes: list[Node]) -> None:
        for node in live(nodes):
            self.builder.line = source.of_node(node)
            try:
                self._known[node] = self._node(node)
            except (LayoutError, RuntimeError, IndexError) as error:
                self._known[node] = UNKNOWN
                reason = str(error).split("\n")[0]
                if not isinstance(error, LayoutError):
                    reason = f"cannot be followed: {reason}"
                self._problem(f"{operator_name(node.target)} {reason}")

    def _problem(self, message: str) -> None:
        self.problems.append(f"{message}\n    at {self.builder.line}")

    def _node(self, node: Node) -> Any:
        if node.op == "placeholder":
            return self.placeholders.get(node.name)
        args = list(torch.fx.node.map_arg(node.args, self._known.__getitem__))
        kwargs = dict(torch.fx.node.map_arg(node.kwargs, self._known.__getitem__))
        if node.op == "output":
            return self._output(node, args[0])
        if has((args, kwargs), _Unknown):
            self._check_known(node.target)
            return UNKNOWN
        result = self._call(node.target, args, kwargs)
        first = node.args[0] if node.args else None
        if in_place(node.target) and isinstance(first, Node):
            self._known[first] = result
        return result

    def _call(self, target: Any, args: list, kwargs: dict) -> Any:
        name = (
            operator_name(target).removesuffix("_") if in_place(target) else (operator_name(target))
        )
        if name in operators.IGNORED:
            return None
        if name in operators.IDENTITY and isinstance(args[0], Traced):
            return args[0]
        if name in operators.DROPOUT:
            if kwargs.get("train", args[2] if len(args) > 2 else False):
                raise LayoutError("has training=True; pass training=self.training")
            return args[0]
        if not isinstance(target, torch._ops.OpOverload):
            return self._python(target, args, kwargs)
        if name == "aten.sym_size":
            return shape_of(args[0])[args[1]]
        handler = self._handlers().get(name)
        if handler is not None and (name == "aten.embedding" or has((args, kwargs), Traced)):
            return handler(*args, **kwargs)
        if not has((args, kwargs), Traced):
            moves = name in operators.MOVEMENT | operators.IDENTITY
            return execute(target, args, kwargs, moves)
        if name in operators.MOVEMENT:
            return self._move(target, args, kwargs)
        if name in operators.ELEMENTWISE:
            return self._elementwise(target, name, args, kwargs)
        if name in operators.FILLS:
            args[0] = Known(torch.zeros(shape_of(args[0])))
            return execute(target, args, kwargs, False)
        if any(isinstance(arg, Traced) and self.builder.is_scores(arg.labels) for arg in args):
            raise LayoutError(OF_SCORES)
        raise _unsupported(name)

    def _check_known(self, target: Any) -> None:
        """Report an operator on what was reported, too, if it is not supported either."""
        name = operator_name(target)
        known = operators.KNOWN | self._handlers().keys()
        if isinstance(target, torch._ops.OpOverload) and name.removesuffix("_") not in known:
            raise _unsupported(name)

    def _handlers(self) -> Mapping[str, Callable]:
        build = self.builder
        return {
            "aten.embedding": build.embedding,
            "aten.linear": build.linear,
            "aten.addmm": build.addmm,
            "aten.matmul": build.matmul,
            "aten.mm": build.matmul,
            "aten.bmm": build.matmul,
            "aten.baddbmm": build.baddbmm,
            "aten.layer_norm": build.layer_norm,
            "aten.native_layer_norm": lambda *a: (build.layer_norm(*a), None, None),
            "aten.softmax": build.softmax,
            "aten._softmax": build.softmax,
            "aten.scaled_dot_product_attention": build.attention,
        }

    def _python(self, target: Any, args: list, kwargs: dict) -> Any:
        """getitem, and arithmetic on sizes."""
        if operator_name(target) != "getitem" and has((args, kwargs), (Traced, Known)):
            raise LayoutError("is not supported")
        return target(*args, **kwargs)

    def _move(self, target: Any, args: list, kwargs: dict) -> Any:
        functions = [
            leaf.function
            for leaf in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(leaf, Traced)
        ]
        if len(functions) > 1:
            args, kwargs = tree_map(self._settled, (args, kwargs))
            functions = [None]
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        plain = tree_map(_movable, (args, kwargs))
        try:
            result = target(*plain[0], **plain[1])
        except (RuntimeError, IndexError) as error:
            reason = str(error).split("\n")[0]
            raise LayoutError(f"depends on a fixed number of samples or tokens: {reason}") from None
        wrap = lambda x: Traced(x, functions[0]) if isinstance(x, Tensor) else x  # noqa: E731
        return tree_map(wrap, result)

    def _settled(self, argument: Any) -> Any:
        return self.builder.settle(argument) if isinstance(argument, Traced) else argument

    def _elementwise(self, target: Any, name: str, args: list, kwargs: dict) -> Any:
        """A function of one traced tensor and numbers, or a sum of two tensors."""
        operands = [arg for arg in args if isinstance(arg, Traced)]
        tensors = [arg for arg in args if isinstance(arg, Known) and arg.value.numel() > 1]
        if len(operands) == 2 and not same_labels(*operands):
            if name not in ("aten.add",) or kwargs.get("alpha", 1) != 1:
                raise LayoutError("of two different values is not supported; only sums are")
            return self.builder.add(operands[0], operands[1])
        first = next(i for i, arg in enumerate(args) if isinstance(arg, Traced))
        base = args[first].labels
        before = [arg.function if isinstance(arg, Traced) else arg for arg in args]

        def function(x: Tensor) -> Tensor:
            plain = [
                (x if made is None else made(x)) if isinstance(arg, Traced) else _number(arg, x)
                for arg, made in zip(args, before, strict=True)
            ]
            return target(*plain, **{k: _number(v, x) for k, v in kwargs.items()})

        if not tensors:
            return Traced(base, function)
        if self.builder.is_scores(base):
            shape = torch.broadcast_shapes(base.shape, *(t.value.shape for t in tensors))
            return self.builder.mask_scores(base.expand(shape), function)
        if name == "aten.add" and len(operands) == 1 and kwargs.get("alpha", 1) == 1:
            return self.builder.add_known(args[first], tensors[0])
        raise LayoutError("of a value and a tensor is not supported; only sums with parameters are")

    def _output(self, node: Node, results: Any) -> None:
        producers: Any = node.args[0]
        for name, producer, result in zip(self.outputs, producers, results, strict=True):
            if isinstance(producer, Node):
                self.builder.line = source.of_node(producer)
            if isinstance(result, Traced):
                try:
                    self.builder.output(name, result)
                except LayoutError as error:
                    self._problem(f"output {name!r} {error}")
            elif result is not None and not isinstance(result, _Unknown):
                self._problem(f"output {name!r} does not depend on the tokens' values")


def _unsupported(name: str) -> LayoutError:
    advice = operators.ADVICE.get(name)
    return LayoutError("is not supported" + (f"; {advice}" if advice else ""))


def live(nodes: list[Node]) -> list[Node]:
    """The nodes that results depend on, and those that change a tensor in place."""
    needed: set[Node] = set()
    for node in reversed(nodes):
        if node in needed or node.op == "output" or in_place(node.target):
            needed.update(node.all_input_nodes, [node])
    return [node for node in nodes if node in needed]


def same_labels(a: Traced, b: Traced) -> bool:
    return a.labels.shape == b.labels.shape and torch.equal(a.labels, b.labels)


def shape_of(argument: Any) -> torch.Size:
    return argument.labels.shape if isinstance(argument, Traced) else argument.value.shape


def _movable(argument: Any) -> Any:
    if isinstance(argument, Known):
        if argument.value.is_floating_point():
            raise LayoutError("joins a value with a parameter")
        return argument.value
    return argument.labels if isinstance(argument, Traced) else argument


def _number(argument: Any, x: Tensor) -> Any:
    """A known tensor as an operand beside x; float tensors take x's precision."""
    if not isinstance(argument, Known):
        return argument
    value = argument.value
    return value.to(x.dtype) if value.is_floating_point() else value


def in_place(target: Any) -> bool:
    """Whether an operator changes its first argument."""
    return isinstance(target, torch._ops.OpOverload) and (
        target._schema.name.endswith("_") and not target._schema.name.endswith("__")
    )


def operator_name(target: Any) -> str:
    """`aten.view` for torch.ops.aten.view.default; a Python function's own name."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    return getattr(target, "__name__", str(target))
