"""What a layer's inputs are like on sample data: E[x x^T], for weights in any module.

The products are watched where all modules meet, in torch's operators: an operand that is a weight
(told by its memory, through masks and copies) makes the other one its input. So layers inside of
nn.GRU (input x and hidden state h), nn.MultiheadAttention and Hugging Face's blocks are reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from .batches import as_batches, call
from .weights import Weight

aten = torch.ops.aten
SAME_VALUES = {aten.mul.Tensor, aten.clone.default, aten._to_copy.default}
"""Operators through which a weight stays the weight: pruning and copies."""


class _Watch(TorchDispatchMode):
    """Sums x x^T and counts inputs for each weight whose product is computed."""

    def __init__(self, weights: Sequence[Weight]) -> None:
        super().__init__()
        self.sums: dict[Weight, Tensor] = {}
        self.counts: dict[Weight, int] = {}
        self._parameters = {_memory(weight.parameter): weight for weight in weights}
        self.forget()

    def forget(self) -> None:
        """Let go of one forward's tensors."""
        self._owners, self._alive = dict(self._parameters), []

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in SAME_VALUES:
            owners = [owner for x in args if (owner := self._owner(x)) is not None]
            if owners:
                self._alive.append(result)
                self._owners[_memory(result)] = owners[0]
        elif func in _INPUTS:
            for weight, x in _INPUTS[func](self._owner, args):
                self._take(weight, x)
        return result

    def _owner(self, x: Any) -> Weight | None:
        return self._owners.get(_memory(x)) if isinstance(x, Tensor) else None

    def _take(self, weight: Weight, x: Tensor) -> None:
        """x [n, N], inputs of a product."""
        x = x.float()
        if not torch.isfinite(x).all():
            raise InputError(f"calibration data must be finite; input of {weight.name!r} is not")
        self.sums[weight] = self.sums.get(weight, 0.0) + x.T @ x
        self.counts[weight] = self.counts.get(weight, 0) + len(x)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


Owner = Callable[[Any], Weight | None]


def _of_product(owner: Owner, args: tuple) -> Iterator[tuple[Weight, Tensor]]:
    """x·W^T or W·x^T in all forms: with a bias, of a single x, of stacked x and a repeated W."""
    left, right = args[-2:]
    if (weight := owner(right)) is not None:
        yield weight, left.reshape(-1, left.shape[-1])
    elif (weight := owner(left)) is not None:
        inputs = right.mT if right.dim() > 1 else right
        yield weight, inputs.reshape(-1, inputs.shape[-1])


def _of_linear(owner: Owner, args: tuple) -> Iterator[tuple[Weight, Tensor]]:
    if (weight := owner(args[1])) is not None:
        yield weight, args[0].reshape(-1, args[0].shape[-1])


def _of_convolution(owner: Owner, args: tuple) -> Iterator[tuple[Weight, Tensor]]:
    """The inputs under every position of a filter; convolutions in groups are left out."""
    x, kernel, _, stride, padding, dilation, _, _, groups = args
    if (weight := owner(kernel)) is None or groups != 1:
        return
    if x.dim() == 3:
        x = x[:, :, None]
    sizes = [
        [*(other,) * (2 - len(size)), *size]
        for size, other in (
            (kernel.shape[2:], 1), (dilation, 1), (padding, 0), (stride, 1),
        )
    ]  # fmt: skip
    patches = functional.unfold(x, *sizes)  # [B, N, positions]
    yield weight, patches.transpose(1, 2).flatten(0, 1)


_INPUTS: dict[Callable, Callable[[Owner, tuple], Iterator[tuple[Weight, Tensor]]]] = {
    aten.mm.default: _of_product,
    aten.addmm.default: _of_product,
    aten.bmm.default: _of_product,
    aten.mv.default: _of_product,
    aten.addmv.default: _of_product,
    aten.linear.default: _of_linear,
    aten.convolution.default: _of_convolution,
}


def collect_moments(model: nn.Module, weights: Sequence[Weight], batches: Any) -> None:
    """Set `state["moment"]`, E[x x^T] [N, N], of each weight from sample inputs of `model`.

    The model computes in real numbers, for evaluation, with pruned weights as they are now. Blocks
    that are fed differently (cross-attention) share the moment of all their inputs.
    Raises InputError for data that is not finite, or that does not reach a weight.
    """
    watch = _Watch(weights)
    with real_numbers(model):
        for batch in as_batches(batches):
            with watch:
                call(model, batch)
            watch.forget()
    for weight in weights:
        if weight not in watch.sums:
            raise InputError(f"calibration batches must reach every layer; not {weight.name!r}")
        weight.state["moment"] = watch.sums[weight] / watch.counts[weight]


@contextmanager
def real_numbers(model: nn.Module) -> Iterator[None]:
    """Within the block `model` computes for evaluation, with pruned but unrounded weights."""
    training = [(module, module.training) for module in model.modules()]
    rounding = [module for module in model.modules() if hasattr(module, "float_mode")]
    function_mode = getattr(model, "function_mode", None)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for module in rounding:
            module.float_mode = True
        if hasattr(model, "function_mode"):
            model.function_mode = _Plain()
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        if hasattr(model, "function_mode"):
            model.function_mode = function_mode
        for module in rounding:
            module.float_mode = False
        for module, was in training:
            module.training = was


class _Plain(torch.overrides.TorchFunctionMode):
    """Torch's own functions, in place of the machine's tables."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))
