"""A run of the study of the character model, to its row; a killed one goes on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from gpt_data import Batches, read
from gpt_model import entropies, loss, new_model, sample_inputs
from gpt_settings import Setting
from ledger import Ledger
from progress import Report
from study_runs import circumstances
from torch import nn

import espalier

CHECKPOINT_EVERY = 200
PARTS = ("validation", "test")


class Study:
    """The text and the ledger."""

    def __init__(self, data: Path, ledger: Ledger) -> None:
        self.text, self.ledger = read(data), ledger

    def finish(self, setting: Setting, progress: Report) -> None:
        """One run, to its row; what it predicts and its weights stay beside the table."""
        start = time.monotonic()
        model = self.compress(self.origin(setting), setting, progress)
        seconds = time.monotonic() - start
        predictions = {name: entropies(model, getattr(self.text, name)) for name in PARTS}
        torch.save(model.state_dict(), self.ledger.weights(setting.values()))
        self.ledger.add(setting.values(), results(model, seconds, predictions), predictions)
        self.ledger.checkpoint(setting.values()).unlink(missing_ok=True)

    def origin(self, setting: Setting) -> nn.Module:
        """What a setting starts from: an untrained model, or the dense one, made now if need be."""
        torch.manual_seed(setting.seed)
        model = new_model(len(self.text.alphabet))
        if setting.is_dense:
            return model
        if not self.ledger.weights(setting.dense.values()).exists():
            with Report(str(setting.dense), 0) as report:
                self.finish(setting.dense, report)
        return self.restore(setting.dense)

    def restore(self, setting: Setting) -> nn.Module:
        """The model of a finished run: pruned and rounded weights in a plain module."""
        model = new_model(len(self.text.alphabet))
        path = self.ledger.weights(setting.values())
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    def compress(self, model: nn.Module, setting: Setting, progress: Report) -> nn.Module:
        """What the setting makes of a model; training alone is compression to a density of 1."""
        torch.manual_seed(setting.seed + 1)
        count = setting.calibration or (0 if setting.steps else 1)
        samples = sample_inputs(self.text.training, count) if count else None
        if not setting.steps:
            return espalier.compress(model, setting.recipe(), calibration=samples)
        return espalier.compress(
            model,
            setting.recipe(),
            calibration=samples,
            batches=Batches(self.text.training, setting.batch),
            loss=loss,
            steps=setting.steps,
            learning_rate=setting.learning_rate,
            checkpoint=self.ledger.checkpoint(setting.values()),
            checkpoint_every=CHECKPOINT_EVERY,
            progress=progress,
        )


def results(
    model: nn.Module, seconds: float, predictions: dict[str, np.ndarray]
) -> dict[str, object]:
    """Shares of the matrices kept and stored, of all parameters kept, cross-entropies in nats."""
    matrices = model.espalier_report.matrices
    size, kept = (sum(getattr(m, name) for m in matrices) for name in ("size", "kept"))
    every = sum(parameter.numel() for parameter in model.parameters())
    row: dict[str, object] = {
        "kept": round(kept / size, 5),
        "stored": round(sum(m.entries for m in matrices) / size, 5),
        "kept_of_all": round(1 - (size - kept) / every, 5),
    }
    row |= {f"{name}_cross_entropy": round(float(predictions[name].mean()), 5) for name in PARTS}
    return row | circumstances(seconds)


def summary(rows: list[dict[str, str]]) -> str:
    """Rows as text."""
    lines = [f"{'':58} kept   stored  validation    test  seconds"]
    for row in rows:
        name = f"{row['method']:10} {float(row['density']):6.4g} {row['pattern']:15} "
        name += f"{row['weight_bits']:>2} bits {row['steps']:>4} steps, seed {row['seed']}"
        shares = f"{float(row['kept']):.4f} {float(row['stored']):.4f}"
        nats = " ".join(f"{float(row[f'{part}_cross_entropy']):9.4f}" for part in PARTS)
        lines.append(f"{name:58} {shares} {nats} {float(row['seconds']):8.0f}")
    return "\n".join(lines)
