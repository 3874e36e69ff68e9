"""The model's inputs: which are ids, floats or masks, and where samples and tokens lie in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..errors import InputError
from .float_graph import MaskInput


@dataclass
class Inputs:
    """The tensors among a forward's arguments, by name.

    integers: inputs that are indices (ids, types, positions). floats: the tokens themselves.
    masks: which tokens count. static: attention masks [tokens, tokens] of a fixed meaning, of which
    the example's value is kept. axes: (batch axis or None, token axis). order: all leaves.
    """

    order: list[str]
    axes: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    integers: dict[str, Tensor] = field(default_factory=dict)
    floats: dict[str, Tensor] = field(default_factory=dict)
    masks: list[str] = field(default_factory=list)
    static: dict[str, Tensor] = field(default_factory=dict)
    likely_kept: bool = True
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def split(
        self, arguments: dict[str, Any], mask: MaskInput | None
    ) -> Iterator[dict[str, Tensor]]:
        """One sample after another, without padding."""
        names = [*self.integers, *self.floats]
        first = arguments[names[0]]
        batch, _ = self.axes[names[0]]
        for number in range(1 if batch is None else first.shape[batch]):
            picked = {}
            for name in names:
                tensor, (axis, _) = arguments[name], self.axes[name]
                if axis is not None:
                    tensor = tensor.select(axis, min(number, tensor.shape[axis] - 1))
                picked[name] = tensor
            if mask is not None:
                kept = arguments[mask.name].reshape(-1, arguments[mask.name].shape[-1])[number]
                length = lengths_of(kept, mask)
                picked = {name: tensor[:length] for name, tensor in picked.items()}
            yield picked


def lengths_of(row: Tensor, mask: MaskInput) -> int:
    """The number of tokens that count. Raises InputError when padding is not on the right."""
    counts = keeps(row) == mask.kept
    length = int(counts.sum())
    if not counts[:length].all() or length == 0:
        raise InputError(
            f"{mask.name} must keep the first tokens of every sample, at least one: "
            "padding must be on the right"
        )
    return length


def keeps(row: Tensor) -> Tensor:
    """A mask as booleans; a float mask adds 0 to what counts."""
    return row != 0


def describe(arguments: dict[str, Any]) -> Iterator[Inputs]:
    """All readings of the arguments, the likeliest first."""
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    floats = {
        name: t for name, t in tensors.items() if t.is_floating_point() and "mask" not in name
    }
    for name, tensor in floats.items():
        if tensor.dim() not in (2, 3):
            raise InputError(
                f"{name} must be [batch, tokens, width], [tokens, batch, width] or "
                f"[tokens, width], not {list(tensor.shape)}"
            )
    order = [name for name, value in arguments.items() for _ in tree_leaves(value)]
    choices = [[(0, 1), (1, 0)] if t.dim() == 3 else [(None, 0)] for t in floats.values()]
    for axes in product(*choices):
        yield _describe(tensors, dict(zip(floats, axes, strict=True)), order)


def _describe(
    tensors: dict[str, Tensor],
    float_axes: dict[str, tuple[int | None, int]],
    order: list[str],
) -> Inputs:
    inputs = Inputs(order=order, axes=dict(float_axes))
    for name, tensor in tensors.items():
        inputs.dtypes[name] = tensor.dtype
        if name in float_axes:
            inputs.floats[name] = tensor
        elif "mask" not in name and tensor.dtype != torch.bool:
            inputs.integers[name] = tensor
            inputs.axes[name] = _plain_axes(name, tensor)
        elif _is_square(name, tensor):
            inputs.static[name] = tensor
        else:
            inputs.masks.append(name)
            inputs.axes[name] = _plain_axes(name, tensor)
            inputs.likely_kept = "padding" not in name
    if not inputs.integers and not inputs.floats:
        raise InputError("one input must be ids or floats of tokens")
    if len(inputs.masks) > 1:
        raise InputError(f"only one padding mask is supported, not {', '.join(inputs.masks)}")
    for name in inputs.masks:
        _check_mask(name, tensors[name], next(iter({**inputs.integers, **inputs.floats}.items())))
    return inputs


def _check_mask(name: str, mask: Tensor, tokens: tuple[str, Tensor]) -> None:
    """A mask has a place for every token of every sample."""
    other, tensor = tokens
    sizes = list(tensor.shape[: 2 if tensor.dim() == 3 or not tensor.is_floating_point() else 1])
    turned = sizes[::-1] if tensor.is_floating_point() else sizes
    if list(mask.shape) not in (sizes, turned):
        raise InputError(
            f"{name} must have a place for every token, {turned} for {other} {list(tensor.shape)}, "
            f"not {list(mask.shape)}"
        )


def _is_square(name: str, mask: Tensor) -> bool:
    """Whether a mask is [tokens, tokens]: torch's are bool or float, padding masks called so."""
    square = mask.dim() == 2 and mask.shape[0] == mask.shape[1]
    integer = not mask.is_floating_point() and mask.dtype != torch.bool
    return square and not integer and "padding" not in name


def _plain_axes(name: str, tensor: Tensor) -> tuple[int | None, int]:
    if tensor.dim() == 1:
        return None, 0
    if tensor.dim() == 2:
        return 0, 1
    raise InputError(f"{name} must be [batch, tokens] or [tokens], not {list(tensor.shape)}")
