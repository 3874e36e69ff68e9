"""The study's classifier, its training in floats, and what it makes of recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fsdd_data import BANDS, Batches, Recordings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from espalier.compression.distillation import divergence

HIDDEN, LAYERS, CLASSES = 256, 2, 10
DROPOUT = 0.2
EVALUATION_BATCH = 100
Progress = Callable[[int, int, float], None]


class SpeechReader(nn.Module):
    """Class scores [B, 10] of log-mel frames [B, T, BANDS], from the state after the last frame."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.gru = nn.GRU(BANDS, hidden, LAYERS, batch_first=True, dropout=DROPOUT)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`lengths` [B] where recordings are padded with frames behind their end."""
        states, _ = self.gru(x)  # [B, T, H]
        last = states[:, -1] if lengths is None else states[torch.arange(len(x)), lengths - 1]
        return self.head(last)


def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    x, lengths, digits = batch
    return cross_entropy(model(x, lengths), digits)


def following(share: float, temperature: float) -> Callable[[nn.Module, Any], Tensor]:
    """A loss that follows the teacher's scores, the batch's fourth tensor, by a share.

    It is `Recipe(distillation=share)`'s, but the teacher answers once and not in every epoch.
    """

    def mixed(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x, lengths, digits, expected = batch
        scores = model(x, lengths)
        task = cross_entropy(scores, digits)
        return (1 - share) * task + share * divergence(scores, expected, temperature)

    return mixed


def train_dense(
    batches: Batches, epochs: int, learning_rate: float, progress: Progress
) -> SpeechReader:
    """The float model from a random start; Adam, one cycle of the learning rate."""
    model, steps = SpeechReader(), epochs * len(batches)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
    for epoch in range(epochs):
        for number, batch in enumerate(batches, 1):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress(epoch * len(batches) + number, steps, value.item())
    return model.eval()


@torch.no_grad()
def log_probabilities(model: nn.Module, recordings: Recordings) -> np.ndarray:
    """ln of the digits' probabilities [N, 10] (float32)."""
    lengths = torch.tensor([len(x) for x in recordings.features])
    result = torch.empty(len(recordings), CLASSES)
    for index in lengths.argsort().split(EVALUATION_BATCH):
        x, last, _ = recordings.padded(index)
        result[index] = model(x, last).log_softmax(dim=1)
    return result.numpy()


def measures(log_probability: np.ndarray, digits: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy (nats)."""
    expected = digits.numpy()
    correct = log_probability.argmax(1) == expected
    return float(correct.mean()), float(-log_probability[np.arange(len(expected)), expected].mean())
