"""What a model makes of continuous speech, and which of the GRU's columns it need not send."""

from __future__ import annotations

import numpy as np
import torch
from fsdd_stream_data import Stream, collate
from torch import Tensor, nn

from espalier.compression.convert import quant_modules
from espalier.compression.temporal import differences, watching
from espalier.quantized import QuantGRU

EVALUATION_BATCH = 24
MATRICES = "weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"
SKIPPED = ("skipped", "skipped_speech", "skipped_pauses", *(f"skipped_{m}" for m in MATRICES))
MEASURES = (
    "validation_accuracy", "validation_cross_entropy", "test_accuracy", "test_cross_entropy"
)  # fmt: skip
Values = dict[str, float]


def measured(
    model: nn.Module, streams: dict[str, list[Stream]], compressed: bool
) -> tuple[Values, dict[str, np.ndarray]]:
    """MEASURES and, of a compressed model on the test, SKIPPED; and its predictions."""
    row: Values = {}
    predictions = {}
    for part in ("validation", "test"):
        scores, digits = log_probabilities(model, streams[part])
        entropy = -scores[np.arange(len(digits)), digits]
        row[f"{part}_accuracy"] = round(float((scores.argmax(1) == digits).mean()), 5)
        row[f"{part}_cross_entropy"] = round(float(entropy.mean()), 5)
        predictions |= {part: scores, f"{part}_digits": digits}
    return row | (skipping(model, streams["test"]) if compressed else {}), predictions


@torch.no_grad()
def log_probabilities(model: nn.Module, streams: list[Stream]) -> tuple[np.ndarray, np.ndarray]:
    """ln of the digits' probabilities [N, 10] (float32), and the digits [N]."""
    scores, digits = [], []
    for some in batches_of(streams):
        x, ends, expected = collate(some)
        scores.append(model(x, ends).log_softmax(-1).flatten(0, 1))
        digits.append(expected.flatten())
    return torch.cat(scores).numpy(), torch.cat(digits).numpy()


def skipping(model: nn.Module, streams: list[Stream]) -> dict[str, float]:
    """Shares of the GRU's columns that are not sent: of all, in speech, in pauses, by matrix."""
    gru = the_gru(model)
    still: dict[str, list[Tensor]] = {name: [] for name in MATRICES}
    with watching(model):
        for some in batches_of(streams):
            x, *_ = collate(some)
            model(x)
            inside = torch.cat([torch.arange(x.shape[1])[None] < len(s.features) for s in some])
            for name in MATRICES:
                unsent = differences(gru.sent[name]) == 0  # [T, B, N]
                still[name].append(unsent.transpose(0, 1)[inside])
    by_matrix = {name: torch.cat(parts).float() for name, parts in still.items()}
    every = torch.cat([*by_matrix.values()], dim=1).mean(1)  # [frames], all columns alike
    speech = torch.cat([stream.speech for stream in streams])
    shares = every.mean(), every[speech].mean(), every[~speech].mean()
    values = [*shares, *(part.mean() for part in by_matrix.values())]
    return {name: round(float(v), 4) for name, v in zip(SKIPPED, values, strict=True)}


def the_gru(model: nn.Module) -> QuantGRU:
    (gru,) = (module for module in quant_modules(model) if isinstance(module, QuantGRU))
    return gru


def batches_of(streams: list[Stream]) -> list[list[Stream]]:
    starts = range(0, len(streams), EVALUATION_BATCH)
    return [streams[first : first + EVALUATION_BATCH] for first in starts]
