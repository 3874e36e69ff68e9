"""Sigmoid and tanh outside of a GRU: the machine's tables in place of torch's functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..spec import numerics
from .arithmetic import table, to_values

SIGMOID = frozenset({torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit})
TANH = frozenset({torch.tanh, torch.Tensor.tanh})
IN_PLACE = {
    torch.sigmoid_: "sigmoid", torch.Tensor.sigmoid_: "sigmoid",
    torch.tanh_: "tanh", torch.Tensor.tanh_: "tanh",
}  # fmt: skip
FUNCTIONS: dict[Callable, str] = {
    **dict.fromkeys(SIGMOID, "sigmoid"),
    **dict.fromkeys(TANH, "tanh"),
    **IN_PLACE,
}
"""What a table computes; nn.Sigmoid, nn.Tanh and torch.nn.functional end in these."""


class _Table(torch.autograd.Function):
    """The table's value; the exact function's derivative, taken at that value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        _, input_scale, output_scale = numerics.FUNCTIONS[name]
        y = (table(name, to_values(x, input_scale)) * output_scale).to(
            torch.promote_types(x.dtype, torch.float32)
        )
        ctx.save_for_backward(y)
        ctx.name = name
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return gradient * (y * (1 - y) if ctx.name == "sigmoid" else 1 - y * y), None


def table_function(name: str, x: Tensor) -> Tensor:
    """Real x as an element of the table's input scale, through the table; a multiple of 2^-15."""
    return _Table.apply(x, name)


class TableFunctions(TorchFunctionMode):
    """While active, sigmoid and tanh in any spelling are computed by the machine's tables.

    Not to be active during torch.export: there they stay aten.sigmoid and aten.tanh.
    """

    def __torch_function__(
        self,
        func: Callable,
        types: Iterable[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = FUNCTIONS.get(func)
        if name is None or not args or kwargs:
            return func(*args, **(kwargs or {}))
        result = table_function(name, args[0])
        return args[0].copy_(result) if func in IN_PLACE else result
