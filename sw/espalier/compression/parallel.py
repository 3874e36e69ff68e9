"""Data-parallel training: several processes, each with its share of every batch.

Every process holds the whole model and sees the same masks, scales and weights at every step:
gradients are averaged before scores, methods and the optimizer see them, and activation ranges are
those of all shares. So a run is that of one process with the whole batches, up to the order of
floating-point sums, where the loss is a mean over samples; batch normalization sees its own share,
and dropout draws other masks.

`torch.distributed` must be initialized, as `espalier compress` does under `torchrun`; without it
everything here is for one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils import _pytree as pytree

from ..errors import InputError
from .batches import tensors


def processes() -> int:
    """How many processes train together."""
    active = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if active else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if processes() > 1 else 0


def share(items: Tensor) -> Tensor:
    """This process' part of the samples [B] of a batch: every so-many-th.

    Raises InputError when there are fewer samples than processes.
    """
    if len(items) < processes():
        raise InputError(
            f"a batch must have a sample for each of {processes()} processes, not {len(items)}: "
            "use larger batches or fewer processes"
        )
    return items[rank() :: processes()]


def of_first(tensor: Tensor) -> Tensor:
    """The first process' values of a tensor, in all processes."""
    if processes() > 1:
        distributed.broadcast(tensor, 0)
    return tensor


def gathered(value: Any) -> list[Any]:
    """What each process has, in the order of ranks; tensors on this process' device."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    distributed.all_gather_object(values, value)
    devices = [tensor.device for tensor in tensors(value)]
    if not devices:
        return values
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(devices[0]), values)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], batch: Any) -> None:
    """Make every gradient the mean over all samples of the processes' shares `batch`."""
    if processes() == 1:
        return
    known = [p for p in parameters if p.requires_grad]
    count = float(_samples(batch))
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() * count for p in known]
        + [known[0].new_tensor([count, *(p.grad is not None for p in known)])]
    )
    distributed.all_reduce(flat)
    total, used = flat[-len(known) - 1], flat[-len(known) :].tolist()
    start = 0
    for parameter, anywhere in zip(known, used, strict=True):
        part = flat[start : start + parameter.numel()]
        start += parameter.numel()
        parameter.grad = (part / total).view_as(parameter) if anywhere else None


def mean_loss(loss: Tensor, batch: Any) -> float:
    """The loss over all shares."""
    value = float(loss.detach())
    if processes() == 1:
        return value
    pair = torch.tensor([value * _samples(batch), _samples(batch)], dtype=torch.float64)
    pair = pair.to(loss.device, torch.float32)
    distributed.all_reduce(pair)
    return float(pair[0] / pair[1])


def _samples(batch: Any) -> int:
    """Samples of a batch: the first axis of its first tensor."""
    found: Sequence[Tensor] = tensors(batch)
    if not found or found[0].dim() == 0:
        raise InputError("a batch must have a tensor with its samples along the first axis")
    return len(found[0])
