"""A run of the study: a model trained or compressed, its predictions, its row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fsdd_data import Batches, Split, read
from fsdd_model import SpeechReader, following, log_probabilities, measures, train_dense
from fsdd_settings import CALIBRATED, GRU_WEIGHTS, HEAD_WEIGHTS, Setting
from ledger import Ledger
from study_runs import circumstances
from torch import nn

import espalier

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Result:
    """A model in evaluation mode, and shares of the weights: kept, and stored with padding."""

    model: nn.Module
    kept: float = 1.0
    stored: float = 1.0


class Study:
    """The data and the ledger."""

    def __init__(self, data: Path, ledger: Ledger) -> None:
        self.data, self.ledger = data, ledger
        self._splits: dict[str, Split] = {}

    def split(self, name: str) -> Split:
        if name not in self._splits:
            self._splits = {name: read(self.data, name)}
        return self._splits[name]

    def finish(self, setting: Setting, progress: Progress) -> None:
        """One run, to its row. Validation and test are computed once, at the end."""
        start = time.monotonic()
        result, split = self.train(setting, progress), self.split(setting.split)
        seconds = time.monotonic() - start
        torch.save(result.model.state_dict(), self.ledger.weights(setting.values()))
        predictions = {
            "validation": log_probabilities(result.model, split.validation),
            "test": log_probabilities(result.model, split.test),
            "validation_digits": split.validation.digits.numpy(),
            "test_digits": split.test.digits.numpy(),
        }
        self.ledger.add(setting.values(), _results(result, seconds, predictions), predictions)

    def train(self, setting: Setting, progress: Progress) -> Result:
        """The model of a setting; training is seeded, and needs the dense one's weights."""
        if setting.is_dense:
            batches = Batches(self.split(setting.split).training, setting.batch)
            torch.manual_seed(setting.seed)
            return Result(train_dense(batches, setting.epochs, setting.learning_rate, progress))
        return self.compress(self.dense(setting, progress), setting, progress)

    def dense(self, setting: Setting, progress: Progress) -> SpeechReader:
        """The float model that a setting starts from, trained now if it is not there."""
        if not self.ledger.finished(setting.dense.values()):
            self.finish(setting.dense, progress)
        path, model = self.ledger.weights(setting.dense.values()), SpeechReader()
        if not path.exists():
            trained = self.train(setting.dense, progress).model
            torch.save(trained.state_dict(), path)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    def compress(self, dense: SpeechReader, setting: Setting, progress: Progress) -> Result:
        training, recipe = self.split(setting.split).training, setting.recipe()
        torch.manual_seed(setting.seed)
        inputs = [(x, lengths) for x, lengths, _ in Batches(training, setting.batch)]
        if setting.epochs:
            scores = torch.from_numpy(log_probabilities(dense, training))
            with fast_products():
                model = espalier.compress(
                    dense,
                    recipe,
                    calibration=inputs if setting.method in CALIBRATED else None,
                    batches=Batches(training, setting.batch, scores),
                    loss=following(setting.distillation, setting.temperature),
                    epochs=setting.epochs,
                    learning_rate=setting.learning_rate,
                    progress=progress,
                )
        else:
            model = espalier.compress(dense, recipe, calibration=inputs)
        report = model.espalier_report
        stored = sum(matrix.entries for matrix in report.matrices) / (GRU_WEIGHTS + HEAD_WEIGHTS)
        return Result(model, report.density, stored)


@contextmanager
def fast_products() -> Iterator[None]:
    """Products of bfloat16 numbers, summed in float32, where the CPU has them: three times as fast.

    The machine's operands, digits and columns, have at most 8 significant bits, so its sums stay
    exact; gradients are rounded.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _results(
    result: Result, seconds: float, predictions: dict[str, np.ndarray]
) -> dict[str, object]:
    row: dict[str, object] = {
        "kept": round(result.kept, 5),
        "stored": round(result.stored, 5),
    }
    for part in ("validation", "test"):
        digits = torch.from_numpy(predictions[f"{part}_digits"])
        accuracy, entropy = measures(predictions[part], digits)
        row |= {
            f"{part}_accuracy": round(accuracy, 5),
            f"{part}_cross_entropy": round(entropy, 5),
        }
    return row | circumstances(seconds)


def summary(rows: Sequence[dict[str, str]]) -> str:
    """Rows as text."""
    lines = [f"{'':66}  kept    validation        test"]
    for row in rows:
        name = (
            f"{row['arithmetic']:7} {row['pattern']:15} {float(row['density']):.4f} "
            f"W{row['weight_bits']:2} {row['lanes']:2} {row['method']:11} {row['split']:9} "
            f"seed {row['seed']}"
        )
        parts = [
            f"{100 * float(row[f'{part}_accuracy']):6.2f} {float(row[f'{part}_cross_entropy']):.4f}"
            for part in ("validation", "test")
        ]
        lines.append(f"{name:66}  {float(row['kept']):.4f}  {'  '.join(parts)}")
    return "\n".join(lines)
