"""A run of the study of SST-2, to its row; a killed one goes on from its checkpoint."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ledger import Ledger
from progress import Report
from sst2_data import Batch, Batches, Sentences, Split, encoder_folder, read
from sst2_embeddings import compress, counts
from sst2_model import SentenceReader, log_probabilities, loss, measures
from sst2_settings import CONTINUED, Setting
from sst2_teacher import Loss, Teacher
from study_runs import circumstances
from torch import nn

import espalier

CHECKPOINT_EVERY = 100
Row = dict[str, str]


class Study:
    """The data, the encoder and the ledger."""

    def __init__(self, data: Path, encoder: Path | None, ledger: Ledger) -> None:
        self.encoder, self.ledger = encoder_folder(encoder), ledger
        self.split: Split = read(data, self.encoder)

    def finish(self, setting: Setting, progress: Report) -> None:
        """One run, to its row."""
        start = time.monotonic()
        dense = self.origin(setting, progress)
        torch.manual_seed(setting.seed)
        model = self.compress(dense, setting, progress)
        seconds = time.monotonic() - start
        if setting.steps or setting.method == "further":
            torch.save(model.state_dict(), self.ledger.weights(setting.values()))
        predictions = {
            name: log_probabilities(model, getattr(self.split, name))
            for name in ("validation", "test")
        }
        for name in ("validation", "test"):
            predictions[f"{name}_labels"] = getattr(self.split, name).labels.numpy()
        self.ledger.add(setting.values(), results(model, seconds, predictions), predictions)
        self.ledger.checkpoint(setting.values()).unlink(missing_ok=True)

    def origin(self, setting: Setting, progress: Report) -> SentenceReader:
        """What a setting starts from, trained now if it is not there; its words compressed."""
        model = SentenceReader(self.encoder, 0.0 if setting.distillation else 0.1)
        before = setting.origin
        if before is None:
            torch.manual_seed(setting.seed)
            return SentenceReader(self.encoder)
        if not self.ledger.weights(before.values()).exists():
            self.finish(before, progress)
        model.load_state_dict(self.weights(before))
        table = model.bert.embeddings.word_embeddings.weight
        table.requires_grad = before.origin is None
        if setting.embedding_density < 1 or setting.embedding_bits < 32:
            used = counts(self.split.training.tokens, len(table))
            table.data = compress(table, setting.embedding_density, setting.embedding_bits, used)
        return model.eval()

    def weights(self, setting: Setting) -> dict[str, torch.Tensor]:
        return torch.load(self.ledger.weights(setting.values()), weights_only=True)

    def restore(self, setting: Setting) -> SentenceReader:
        """The model of a finished run: pruned and rounded weights in a plain module."""
        model = SentenceReader(self.encoder)
        model.load_state_dict(self.weights(setting))
        return model.eval()

    @cached_property
    def teacher(self) -> Teacher:
        """The dense model, which remembers what it said about every row."""
        return Teacher(self.restore(CONTINUED))

    def compress(self, model: nn.Module, setting: Setting, progress: Report) -> nn.Module:
        """What the setting makes of a model; fine-tuning is compression to a density of 1."""
        training = self.drawn(setting.examples)
        calibration = None
        if setting.calibration or not setting.steps:
            few = training.some(torch.arange(setting.calibration or 1))
            calibration = [(batch.ids, batch.mask) for batch in ordered(few)]
        if not setting.steps:
            return espalier.compress(model, setting.recipe(), calibration=calibration)
        taught = setting.distillation > 0
        return espalier.compress(
            model,
            setting.recipe(),
            calibration=calibration,
            batches=Batches(training, setting.batch),
            loss=Loss(self.teacher, setting.distillation, setting.hidden) if taught else loss,
            steps=setting.steps,
            learning_rate=setting.learning_rate,
            checkpoint=self.ledger.checkpoint(setting.values()),
            checkpoint_every=CHECKPOINT_EVERY,
            progress=progress,
        )

    def drawn(self, examples: int) -> Sentences:
        """The same rows of the training set for every run."""
        order = np.random.default_rng(1).permutation(len(self.split.training))
        return self.split.training.some(torch.from_numpy(order[:examples]))


def ordered(sentences: Sentences, size: int = 32) -> list[Batch]:
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
        "kept_of_all": round(kept_of_all(model), 5),
    }
    for part in ("validation", "test"):
        labels = torch.from_numpy(predictions[f"{part}_labels"])
        accuracy, entropy = measures(predictions[part], labels)
        row |= {
            f"{part}_accuracy": round(accuracy, 5),
            f"{part}_cross_entropy": round(entropy, 5),
        }
    return row | circumstances(seconds)


def kept_of_all(model: nn.Module) -> float:
    """Share of all parameters that are not 0."""
    every = sum(parameter.numel() for parameter in model.parameters())
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters()) / every


def summary(rows: list[Row]) -> str:
    """Rows as text."""
    lines = [f"{'':65} kept  stored   validation       test        seconds"]
    for row in rows:
        name = f"{row['method']:10} {float(row['density']):4.0%} {row['pattern']:15} "
        name += f"{row['weight_bits']:>2} bits {row['steps']:>5} steps"
        name += f" words {float(row['embedding_density']):4.0%} {row['embedding_bits']:>2} bits"
        parts = [
            f"{100 * float(row[f'{part}_accuracy']):6.2f} {float(row[f'{part}_cross_entropy']):.4f}"
            for part in ("validation", "test")
        ]
        shares = f"{float(row['kept']):.4f} {float(row['stored']):.4f}"
        lines.append(f"{name}  {shares} {'  '.join(parts)} {float(row['seconds']):8.0f}")
    return "\n".join(lines)
