"""Bits per matrix by sensitivity: eight where they pay most, under a budget of stored entries.

small = compress(model, Recipe(weight_bits=8), calibration=x)
bits = choose_bits(bit_sensitivity(small, x), entries=40_000)
set_bits(small, bits)                                           # at once, or
recipe = Recipe(layers={name: {"weight_bits": b} for name, b in bits.items()})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, RecipeError
from ..quantized import QuantModule
from ..spec.config import DE1_SOC, Config
from .batches import as_batches, call, tensors
from .convert import quant_modules
from .distillation import distance
from .moments import real_numbers
from .report import Report, stored_entries
from .weights import matrix_name

LossFunction = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class BitSensitivity:
    """What a matrix' bits do to the loss, all others having 8.

    entries: stored entries at 4 bits, padding included; 8 bits take twice as many.
    loss_4, loss_8: mean loss with this matrix in 4 and in 8 bits.
    """

    name: str
    entries: int
    loss_4: float
    loss_8: float

    @property
    def gain(self) -> float:
        """What 8 bits gain in loss for each entry that they add."""
        return (self.loss_4 - self.loss_8) / max(self.entries, 1)


def bit_sensitivity(
    small: nn.Module, batches: Any, loss: LossFunction | None = None, config: Config = DE1_SOC
) -> list[BitSensitivity]:
    """Measure every matrix of a compressed model, which is left as it was.

    loss: loss(model, batch), a scalar; none: the squared distance of the model's results from those
        of its unrounded weights and activations, relative to their square (no labels needed).
    """
    batches = list(as_batches(batches))
    losses = _distances(small, batches) if loss is None else [loss] * len(batches)
    with _own_bits(small), torch.no_grad():
        _set_all(small, 8)
        base = _mean_loss(small, batches, losses)
        result = []
        for module, name, entries in _matrices(small, config):
            _set(module, name, 4)
            lower = _mean_loss(small, batches, losses)
            _set(module, name, 8)
            path = matrix_name(module.path, name)
            result.append(BitSensitivity(name=path, entries=entries, loss_4=lower, loss_8=base))
    return result


def choose_bits(
    sensitivities: Sequence[BitSensitivity],
    entries: int | None = None,
    config: Config = DE1_SOC,
) -> dict[str, int]:
    """4 or 8 for each matrix, so that at most `entries` are stored (none: what `config` holds).

    Greedy: of the matrices whose second digits still fit, the one that gains most for each entry is
    next; those that gain nothing keep 4 bits. Differences of loss are taken to add up.
    Raises RecipeError when even 4 bits are too many.
    """
    if entries is None:
        entries = config.total_lanes * config.weight_depth
    left = entries - sum(each.entries for each in sensitivities)
    if left < 0:
        raise RecipeError(
            f"entries must be at least {entries - left}, what 4 bits take, not {entries}: "
            "lower the density"
        )
    bits = {each.name: 4 for each in sensitivities}
    for each in sorted(sensitivities, key=lambda each: each.gain, reverse=True):
        if each.gain > 0 and each.entries <= left:
            bits[each.name] = 8
            left -= each.entries
    return bits


def set_bits(small: nn.Module, bits: Mapping[str, int]) -> None:
    """Give matrices of a compressed model these bits, with scales fitted anew; in place."""
    known = {
        matrix_name(module.path, name): (module, name)
        for module in quant_modules(small)
        for name in module.matrices()
    }
    for path, value in bits.items():
        if path not in known:
            raise RecipeError(f"{path!r} is no compressed matrix; there are: {', '.join(known)}")
        module, name = known[path]
        if module.bit_widths[name] != value:
            _set(module, name, value)
    if isinstance(report := getattr(small, "espalier_report", None), Report):
        matrices = (
            replace(m, weight_bits=bits.get(m.name, m.weight_bits)) for m in report.matrices
        )
        small.espalier_report = replace(report, matrices=tuple(matrices))


def _set(module: QuantModule, name: str, value: int) -> None:
    module.set_bit_width(name, value)
    module.kept_scales.clear()
    module.update_scales()


def _set_all(small: nn.Module, value: int) -> None:
    for module in quant_modules(small):
        for name in module.matrices():
            _set(module, name, value)


def _matrices(small: nn.Module, config: Config) -> Iterator[tuple[QuantModule, str, int]]:
    """Modules, matrices and their entries at 4 bits."""
    modules = quant_modules(small)
    if not modules:
        raise RecipeError("the model must be one that compress returned, to choose its bits")
    for module in modules:
        for name in module.matrices():
            blocks = module.mask(name).chunk(module.blocks)
            yield module, name, sum(stored_entries(mask, config.lanes) for mask in blocks)


@contextmanager
def _own_bits(small: nn.Module) -> Iterator[None]:
    """Bits and scales are after the block what they were before, and the model evaluates in it."""
    modules = quant_modules(small)
    training = [(module, module.training) for module in small.modules()]
    saved = [
        (dict(m.bit_widths), set(m.kept_scales), {n: getattr(m, n).clone() for n in m.row_scales})
        for m in modules
    ]
    small.eval()
    try:
        yield
    finally:
        for module, (widths, kept, scales) in zip(modules, saved, strict=True):
            module.bit_widths, module.kept_scales = widths, kept
            for name, scale in scales.items():
                getattr(module, name).copy_(scale)
        for module, was in training:
            module.training = was


def _mean_loss(small: nn.Module, batches: Sequence[Any], losses: Sequence[LossFunction]) -> float:
    values = [float(loss(small, batch)) for loss, batch in zip(losses, batches, strict=True)]
    mean = sum(values) / len(values)
    if mean != mean:
        raise InputError("loss must be finite; it is NaN for the model in 8 bits: check the data")
    return mean


def _distances(small: nn.Module, batches: Sequence[Any]) -> list[LossFunction]:
    """For each batch, the distance from what the model gives in real numbers."""

    def measure(expected: Sequence[Tensor]) -> LossFunction:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            pairs = zip(tensors(call(model, batch)), expected, strict=True)
            return torch.stack([distance(mine, exact) for mine, exact in pairs]).mean()

        return loss

    with real_numbers(small):
        return [measure(tensors(call(small, batch))) for batch in batches]
