"""What retraining follows besides labels: the dense model's scores and hidden states, by sentence.

The dense model reads every sentence once; what it said is kept, because a study trains many models
on the same rows.
"""

from __future__ import annotations

import torch
from sst2_data import Batch
from sst2_model import SentenceReader
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from espalier.compression.distillation import divergence

LAYERS = (2, 4, 6)
"""Of the hidden states, those that are followed; 0 would be the embeddings."""
TEMPERATURE = 2.0


class Teacher:
    """Scores [2] and hidden states [LAYERS, T, C] (16-bit floats) of the dense model, by row."""

    def __init__(self, model: SentenceReader) -> None:
        self.model = model.eval().requires_grad_(False)
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [B, 2] and hidden states [B, T, LAYERS, C] of a batch, 0 behind the end."""
        new = torch.tensor([i for i, row in enumerate(batch.rows) if row not in self.known])
        if len(new):
            scores, hidden = self.model.read(batch.ids[new], batch.mask[new])
            kept = torch.stack([hidden[layer] for layer in LAYERS], dim=2).half()
            lengths = batch.mask[new].sum(1).tolist()
            for i, each, states, length in zip(new.tolist(), scores, kept, lengths, strict=True):
                self.known[batch.rows[i]] = each.clone(), states[:length].clone()
        found = [self.known[row] for row in batch.rows]
        states = pad_sequence([states for _, states in found], batch_first=True)
        return torch.stack([scores for scores, _ in found]), states.float()


class Loss:
    """(1 - logits)·cross-entropy + logits·divergence + hidden·distance of a model and a batch.

    The distance is the squared one of hidden states, relative to the teacher's mean square, a mean
    over layers and words. Source: see `espalier.compression.Distillation`, whose terms these are.
    """

    def __init__(self, teacher: Teacher, logits: float, hidden: float) -> None:
        self.teacher, self.logits, self.hidden = teacher, logits, hidden

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        expected, states = self.teacher(batch)
        scores, hidden = model.read(batch.ids, batch.mask)
        total = (1 - self.logits) * cross_entropy(scores, batch.labels)
        total = total + self.logits * divergence(scores, expected, TEMPERATURE)
        if not self.hidden:
            return total
        there = batch.mask[:, :, None, None]
        mine = torch.stack([hidden[layer] for layer in LAYERS], dim=2)
        error = ((mine - states) * there).square().sum((0, 1, 3))
        return total + self.hidden * (error / states.square().sum((0, 1, 3))).mean()
