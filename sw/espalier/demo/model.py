"""The demo's model: a GRU that reads a digit row by row, and a linear layer on its last state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .data import CLASSES, PIXELS


class DigitReader(nn.Module):
    """Ten class scores [B, 10] of a digit's rows [B, T=8, F=8]."""

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.gru = nn.GRU(PIXELS, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        states, _ = self.gru(rows)  # [B, T, H]
        return self.head(states[:, -1])  # [B, 10]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    rows, labels = batch
    return cross_entropy(model(rows), labels)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of samples whose highest score is their label's."""
    return (scores.argmax(1) == labels).double().mean().item()


class Batches:
    """Shuffled batches, iterable again and again; the order follows torch's random generator."""

    def __init__(self, rows: Tensor, labels: Tensor, size: int = 64):
        self.rows, self.labels, self.size = rows, labels, size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self):
        for index in torch.randperm(len(self.rows)).split(self.size):
            yield self.rows[index], self.labels[index]
