"""Runs of the study of SST-2, one after the other; a killed one goes on from its checkpoint."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from ledger import Ledger, key
from progress import Report
from sst2_data import Batches, Sentences, Split, encoder_folder, read
from sst2_model import SentenceReader, log_probabilities, loss, measures
from sst2_settings import Setting
from torch import nn

import espalier

CHECKPOINT_EVERY = 25
Row = dict[str, str]


class Study:
    """The data, the encoder, the ledger, and how long it may take."""

    def __init__(
        self, data: Path, encoder: Path | None, ledger: Ledger, minutes: float | None = None
    ) -> None:
        self.encoder, self.ledger = encoder_folder(encoder), ledger
        self.split: Split = read(data, self.encoder)
        self.budget = minutes and 60 * minutes
        self.start = time.monotonic()

    def run(self, settings: Iterable[Setting]) -> list[Setting]:
        """Run what is not finished yet, in order; gives what the budget left out."""
        wanted = [s for s in dict.fromkeys(settings) if not self.ledger.finished(s.values())]
        longest = 0.0
        for number, setting in enumerate(wanted):
            elapsed = time.monotonic() - self.start
            if self.budget is not None and elapsed + longest > self.budget:
                return wanted[number:]
            title, left = f"{number + 1}/{len(wanted)} {setting}", len(wanted) - number - 1
            with Report(title, left) as report:
                self.finish(setting, report)
            longest = max(longest, time.monotonic() - self.start - elapsed)
        return []

    def finish(self, setting: Setting, progress: Report) -> None:
        """One run, to its row."""
        start = time.monotonic()
        dense = None if setting.is_dense else self.dense(setting.dense, progress)
        torch.manual_seed(setting.seed)
        model = self.compress(dense or SentenceReader(self.encoder), setting, progress)
        seconds = time.monotonic() - start
        if setting.is_dense:
            torch.save(model.state_dict(), self.ledger.weights(setting.values()))
        predictions = {
            name: log_probabilities(model, getattr(self.split, name))
            for name in ("validation", "test")
        }
        for name in ("validation", "test"):
            predictions[f"{name}_labels"] = getattr(self.split, name).labels.numpy()
        self.ledger.add(setting.values(), results(model, seconds, predictions), predictions)
        self.checkpoint(setting).unlink(missing_ok=True)

    def dense(self, setting: Setting, progress: Report) -> SentenceReader:
        """The fine-tuned model of a setting, trained now if it is not there."""
        model = SentenceReader(self.encoder)
        path = self.ledger.weights(setting.values())
        if not path.exists():
            torch.manual_seed(setting.seed)
            trained = self.compress(model, setting, progress)
            torch.save(trained.state_dict(), path)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    def compress(self, model: nn.Module, setting: Setting, progress: Report) -> nn.Module:
        """What the setting makes of a model; fine-tuning is compression to a density of 1."""
        training = self.drawn(setting.examples)
        calibration = None
        if setting.calibration:
            few = training.some(torch.arange(setting.calibration))
            calibration = [(ids, mask) for ids, mask, _ in ordered(few)]
        if not setting.steps:
            return espalier.compress(model, setting.recipe(), calibration=calibration)
        return espalier.compress(
            model,
            setting.recipe(),
            calibration=calibration,
            batches=Batches(training, setting.batch),
            loss=loss,
            steps=setting.steps,
            learning_rate=setting.learning_rate,
            checkpoint=self.checkpoint(setting),
            checkpoint_every=CHECKPOINT_EVERY,
            progress=progress,
        )

    def drawn(self, examples: int) -> Sentences:
        """The same rows of the training set for every run."""
        order = np.random.default_rng(1).permutation(len(self.split.training))
        return self.split.training.some(torch.from_numpy(order[:examples]))

    def checkpoint(self, setting: Setting) -> Path:
        return self.ledger.weights(setting.values()).with_name(f"{key(setting.values())}.running")


def ordered(sentences: Sentences, size: int = 32) -> Iterable[tuple]:
    """Batches of similar lengths, always the same."""
    lengths = torch.tensor([len(x) for x in sentences.tokens])
    return [sentences.padded(index) for index in lengths.argsort(stable=True).split(size)]


def results(
    model: nn.Module, seconds: float, predictions: dict[str, np.ndarray]
) -> dict[str, object]:
    report = model.espalier_report
    inside = [m for m in report.matrices if m.name.startswith("bert.encoder")]
    size = sum(m.size for m in inside)
    row: dict[str, object] = {
        "kept": round(sum(m.kept for m in inside) / size, 5),
        "stored": round(sum(m.entries for m in inside) / size, 5),
        "kept_of_all": round(_kept_of_all(model, size - sum(m.kept for m in inside)), 5),
    }
    for part in ("validation", "test"):
        labels = torch.from_numpy(predictions[f"{part}_labels"])
        accuracy, entropy = measures(predictions[part], labels)
        row |= {
            f"{part}_accuracy": round(accuracy, 5),
            f"{part}_cross_entropy": round(entropy, 5),
        }
    return row | {
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _kept_of_all(model: nn.Module, removed: int) -> float:
    return 1 - removed / sum(parameter.numel() for parameter in model.parameters())


def summary(rows: list[Row]) -> str:
    """Rows as text."""
    lines = [f"{'':46} kept  stored   validation       test        seconds"]
    for row in rows:
        name = f"{row['method']:10} {float(row['density']):4.0%} {row['pattern']:15} "
        name += f"{row['weight_bits']:>2} bits {row['steps']:>5} steps"
        parts = [
            f"{100 * float(row[f'{part}_accuracy']):6.2f} {float(row[f'{part}_cross_entropy']):.4f}"
            for part in ("validation", "test")
        ]
        shares = f"{float(row['kept']):.4f} {float(row['stored']):.4f}"
        lines.append(f"{name}  {shares} {'  '.join(parts)} {float(row['seconds']):8.0f}")
    return "\n".join(lines)
