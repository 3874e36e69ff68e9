"""Arrays from files as samples: batches to train on, sample inputs, losses, measures."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..compression import parallel
from ..compression.batches import Arguments, tensors
from ..errors import InputError
from .shared import UsageError

LABELS = ("labels", "label", "targets", "target", "y")
Batch = tuple[Arguments, Tensor | None]
Loss = Callable[[nn.Module, Any], Tensor]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz, .npy or .safetensors file by name; a .npy's is the file's own.

    Pickles are refused. Raises InputError.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {path.stem: loaded}
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be read as arrays ({error}); write them with numpy.savez, numpy.save "
            "or safetensors"
        ) from error


@dataclass(frozen=True)
class Samples:
    """Inputs by name, in order, and labels if there are any; samples along the first axis.

    Members
    -------
    named: whether the names are those of the forward's parameters; else inputs go by order.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    named: bool

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batch(self, index: Tensor, device: torch.device) -> Batch:
        """Some samples: what the model is called with, and their labels."""
        chosen = {name: value[index].to(device) for name, value in self.inputs.items()}
        arguments = Arguments((), chosen) if self.named else Arguments((*chosen.values(),), {})
        return arguments, None if self.labels is None else self.labels[index].to(device)

    def digest(self) -> str:
        """A name of these very samples."""
        result = hashlib.sha256()
        for name, value in {**self.inputs, "labels": self.labels}.items():
            if value is not None:
                result.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                result.update(value.contiguous().numpy().tobytes())
        return result.hexdigest()


def read_samples(paths: list[Path], model: nn.Module, labels: str | None = None) -> Samples:
    """The samples of all files. Raises InputError when arrays do not fit each other."""
    arrays: dict[str, np.ndarray] = {}
    for path in paths:
        for name, array in read_arrays(path).items():
            if name in arrays:
                raise InputError(f"{path}: array {name!r} is there twice; names must differ")
            arrays[name] = array
    found = labels or next((name for name in LABELS if name in arrays), None)
    if labels is not None and labels not in arrays:
        raise UsageError(f"--labels must name one of: {', '.join(arrays)}; not {labels!r}")
    values = {name: _tensor(name, array) for name, array in arrays.items()}
    target = values.pop(found) if found else None
    if not values:
        raise InputError("the data must have an input beside the labels")
    lengths = {name: len(value) for name, value in {**values, found or "": target}.items()
               if value is not None}  # fmt: skip
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise InputError(
            "all arrays must have the samples along their first axis, at least one; they have "
            + ", ".join(f"{name}: {length}" for name, length in lengths.items())
        )
    return Samples(values, target, _are_parameters(model, values))


def _tensor(name: str, array: np.ndarray) -> Tensor:
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise InputError(
            f"array {name!r} must have numbers, samples along its first axis; "
            f"it is {array.dtype} {list(array.shape)}"
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"array {name!r} must be finite; it has NaN or infinity")
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array.astype(np.int64))


def _are_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> bool:
    return set(values) <= set(inspect.signature(model.forward).parameters)


class Batches:
    """Batches of all samples in random order, of sizes that differ by at most one.

    The order follows torch's default random generator, of the first process when there are several:
    each has its share of every batch.
    """

    def __init__(self, samples: Samples, size: int, device: torch.device) -> None:
        self.samples, self.size, self.device = samples, size, device

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        order = parallel.of_first(torch.randperm(len(self.samples)).to(self.device)).cpu()
        for index in order.tensor_split(len(self)):
            yield self.samples.batch(parallel.share(index), self.device)


def in_order(samples: Samples, size: int, device: torch.device) -> Iterator[Batch]:
    """All samples, for measuring."""
    for index in torch.arange(len(samples)).split(size):
        yield samples.batch(index, device)


def scores(model: nn.Module, arguments: Arguments) -> Tensor:
    """The model's result, the first tensor of several."""
    return tensors(model(*arguments.args, **arguments.kwargs))[0]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Of outputs [..., C] and class numbers [...]."""
    outputs, labels = scores(model, batch[0]), _labels(batch)
    _fit(outputs, labels, outputs.shape[:-1], "integers, one for each of the model's scores")
    if labels.min() < 0 or labels.max() >= outputs.shape[-1]:
        raise InputError(
            f"labels must be in 0..{outputs.shape[-1] - 1}, as the model has scores; they are in "
            f"{int(labels.min())}..{int(labels.max())}"
        )
    return functional.cross_entropy(outputs.flatten(0, -2), labels.flatten())


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error."""
    outputs, labels = scores(model, batch[0]), _labels(batch)
    _fit(outputs, labels, outputs.shape, "numbers, one for each of the model's outputs")
    return functional.mse_loss(outputs, labels.to(outputs.dtype))


def no_labels(model: nn.Module, batch: Batch) -> Tensor:
    """A task of nothing, for following the dense model alone."""
    return scores(model, batch[0]).sum() * 0.0


def _labels(batch: Batch) -> Tensor:
    if batch[1] is None:
        raise UsageError(
            f"this loss needs labels: an array called one of {', '.join(LABELS)}, or --labels NAME"
        )
    return batch[1]


def _fit(outputs: Tensor, labels: Tensor, shape: torch.Size, what: str) -> None:
    if labels.shape != shape:
        raise InputError(
            f"labels must be {what}: {list(shape)} for outputs {list(outputs.shape)}, "
            f"not {list(labels.shape)}"
        )


@torch.no_grad()
def measure(
    model: nn.Module, samples: Samples, loss: Loss, size: int, device: torch.device
) -> dict[str, float]:
    """The mean loss, and the share of right answers where labels are classes."""
    total, right, answers = 0.0, 0, 0
    model.eval()
    for batch in in_order(samples, size, device):
        total += float(loss(model, batch)) * len(tensors(batch)[0])
        if batch[1] is not None and loss is cross_entropy:
            hits = scores(model, batch[0]).argmax(-1) == batch[1]
            right, answers = right + int(hits.sum()), answers + hits.numel()
    result = {"loss": total / len(samples)}
    return result | ({"accuracy": right / answers} if answers else {})
