"""What sample data looks like: batches of forward arguments, tensors in nested results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import InputError


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def as_batches(batches: Any) -> Iterator[Any]:
    """The batches of calibration data; a lone tensor is one. Raises InputError for none."""
    ran = False
    for batch in [batches] if isinstance(batches, Tensor) else batches:
        ran = True
        yield batch
    if not ran:
        raise InputError("calibration must have at least one batch; it is empty")


class Arguments(NamedTuple):
    """What a forward was called with."""

    args: tuple
    kwargs: Mapping[str, Any]


def call(model: nn.Module, batch: Any) -> Any:
    """The model's result for a calibration batch: a tensor, a tuple or a dict of arguments."""
    if isinstance(batch, Arguments):
        return model(*batch.args, **batch.kwargs)
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, (tuple, list)) and batch:
        return model(*batch)
    if isinstance(batch, Mapping) and batch:
        return model(**batch)
    raise InputError(
        "a calibration batch must be a tensor or a tuple of the forward's arguments, or a dict of "
        f"them, not {type(batch).__name__}"
    )
