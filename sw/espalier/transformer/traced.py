"""What a node of the exported graph is during the walk: labels, or tensors known as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .float_graph import HostLayer, Reference, Value
from .functions import Function, recognize
from .labels import LayoutError


@dataclass
class Traced:
    """function(x) elementwise, where x has `labels`."""

    labels: Tensor
    function: Function | None = None

    def then(self, function: Function) -> Traced:
        before = self.function
        return Traced(self.labels, function if before is None else lambda x: function(before(x)))

    def factor(self) -> float:
        """The factor when the function is a multiplication. Raises LayoutError when it is not."""
        if self.function is None:
            return 1.0
        factor = recognize(self.function)
        if not isinstance(factor, float):
            raise LayoutError("takes a function of queries, keys, values or scores")
        return factor


@dataclass
class Known:
    """A tensor that does not depend on the tokens' values: parameters, masks, positions.

    parameter, places: for elements of one parameter, which ones. depends: integer and mask inputs
    that it was computed from, with the values that were tried.
    """

    value: Tensor
    parameter: str | None = None
    places: Tensor | None = None
    depends: frozenset[str] = frozenset()

    def reference(self) -> Reference:
        if self.parameter is None or self.places is None:
            raise LayoutError("needs a parameter of the model where it gets a computed tensor")
        return Reference(self.parameter, self.places)


class _Unknown:
    """The result of a node that was reported already."""


UNKNOWN = _Unknown()


@dataclass(eq=False)
class Scores:
    """scale·q·k of heads: features [heads, size] of queries and keys; allowed [samples, heads,
    tokens, tokens]."""

    query: Tensor
    key: Tensor
    scale: float
    allowed: Tensor
    normalized: bool = False

    @property
    def heads(self) -> int:
        return len(self.query)


@dataclass(eq=False)
class Pooled:
    """The first token of `value` through host layers."""

    value: Value
    layers: list[HostLayer]


def has(arguments: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a (nested) argument is a `kind`."""
    return any(isinstance(leaf, kind) for leaf in tree_leaves(arguments))


def execute(target: Callable, args: list, kwargs: dict, moves: bool) -> Any:
    """An operator on known tensors by torch itself; movement keeps the parameter's places."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Known)]
    depends = frozenset[str]().union(*(leaf.depends for leaf in leaves))
    plain = tree_map(lambda x: x.value if isinstance(x, Known) else x, (args, kwargs))
    result = target(*plain[0], **plain[1])
    parameters = {leaf.parameter for leaf in leaves if leaf.value.is_floating_point()}
    parameter = next(iter(parameters)) if len(parameters) == 1 and moves else None
    if parameter is None:
        return _wrap(result, None, None, depends)
    moved = tree_map(_places, (args, kwargs))
    return _wrap(result, parameter, target(*moved[0], **moved[1]), depends)


def _places(argument: Any) -> Any:
    if not isinstance(argument, Known):
        return argument
    return argument.value if argument.places is None else argument.places


def _wrap(result: Any, parameter: str | None, places: Any, depends: frozenset[str]) -> Any:
    if isinstance(result, Tensor):
        return Known(result, parameter, places, depends)
    if isinstance(result, list | tuple):
        moved = places if places is not None else [None] * len(result)
        return [_wrap(a, parameter, b, depends) for a, b in zip(result, moved, strict=True)]
    return result
