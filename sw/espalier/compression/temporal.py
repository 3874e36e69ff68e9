"""Temporal sparsity: columns that need not be sent, how many there are and how to get more.

A GRU's column is skipped when it differs from what was last sent by no more than its threshold;
where a layer takes no differences, a column is skipped when it is zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..quantized import QuantGRU, QuantModule
from ..spec.numerics import COLUMN_MAX
from .batches import as_batches, call
from .convert import quant_modules
from .weights import matrix_name


def differences(sent: Tensor) -> Tensor:
    """What is sent of columns [T, B, N] when they are taken as differences, the first from 0."""
    return sent - torch.cat([torch.zeros_like(sent[:1]), sent[:-1]])


def takes_differences(module: QuantModule) -> bool:
    return isinstance(module, QuantGRU) and module.delta


def delta_loss(model: nn.Module) -> Tensor | float:
    """Mean |difference| that GRUs are sent in the last watched forward, in ranges (127 steps).

    Only columns with a gradient count: no training changes the model's own inputs. What is held
    back costs nothing, so nothing pulls at differences within the threshold.

    Source: Neil et al., Delta Networks for Optimized Recurrent Network Computation, arXiv
    1612.05571, section 3.3 (L1 cost of the hidden state's differences).
    """
    total, columns = 0.0, 0
    for module in filter(takes_differences, quant_modules(model)):
        for sent in module.sent.values():
            if sent.requires_grad:
                total = total + differences(sent).abs().sum()
                columns += sent.numel()
        module.sent.clear()
    return total / (COLUMN_MAX * max(columns, 1))


@contextmanager
def watching(model: nn.Module) -> Iterator[None]:
    """Within the block the model computes for evaluation, and its modules keep what is sent."""
    training = [(module, module.training) for module in model.modules()]
    watched = [(module, module.watched) for module in quant_modules(model)]
    try:
        for module, _ in watched:
            module.watched = True
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, was in watched:
            module.watched = was
            module.sent.clear()
        for module, was in training:
            module.training = was


def skipped_columns(model: nn.Module, batches: Any) -> dict[str, float]:
    """Share of columns that the machine skips, by matrix, when a compressed model runs `batches`.

    Of a GRU, those whose difference is held back or zero; of a linear layer, zeros.
    """
    columns: Counter[str] = Counter()
    skipped: Counter[str] = Counter()

    def count(module: QuantModule, args: tuple, output: Any) -> None:
        for name, sent in module.sent.items():
            work = differences(sent) if takes_differences(module) else sent
            columns[matrix_name(module.path, name)] += work.numel()
            skipped[matrix_name(module.path, name)] += int((work == 0).sum())

    hooks = [module.register_forward_hook(count) for module in quant_modules(model)]
    try:
        with watching(model):
            for batch in as_batches(batches):
                call(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: skipped[name] / total for name, total in columns.items()}
