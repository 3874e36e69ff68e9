"""Float training of the demo's model, and its compression."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..compression import Recipe, compress
from .data import Digits
from .model import Batches, DigitReader, loss

Progress = Callable[[int, int, float], None]

RECIPE = Recipe(
    density=1 / 12,
    weight_bits=4,
    layers={"gru.weight_ih_l0": {"density": 1 / 2}, "head.weight": {"density": 1 / 2}},
    distillation=0.5,
)
"""A twelfth of the recurrent weights, half of the few input and output weights, all in 4 bits."""


def batches(data: Digits) -> Batches:
    return Batches(torch.from_numpy(data.train), torch.from_numpy(data.train_labels))


def train_float(data: Digits, *, epochs: int = 25, progress: Progress | None = None) -> nn.Module:
    """The model before compression, in evaluation mode."""
    torch.manual_seed(0)
    model, examples = DigitReader(), batches(data)
    steps = epochs * len(examples)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    for epoch in range(epochs):
        for number, batch in enumerate(examples, 1):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(epoch * len(examples) + number, steps, value.item())
    return model.eval()


def train_compressed(
    model: nn.Module, data: Digits, *, epochs: int = 16, progress: Progress | None = None
) -> nn.Module:
    """A compressed copy, trained while its weights are pruned and quantized."""
    torch.manual_seed(0)
    return compress(
        model,
        RECIPE,
        batches=batches(data),
        loss=loss,
        epochs=epochs,
        learning_rate=5e-3,
        progress=progress,
    )


def dense_8_bit(model: nn.Module, data: Digits) -> nn.Module:
    """All weights in 8 bits, no training: what quantization alone costs."""
    recipe = Recipe(density=1.0, weight_bits=8)
    return compress(model, recipe, calibration=[torch.from_numpy(data.train)])
