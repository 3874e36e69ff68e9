"""Compiled programs against the compressed modules that they came from, on the test recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from fsdd_compare import name, setting_of
from fsdd_data import Recordings
from fsdd_settings import Setting, accelerator
from fsdd_study import Study
from intervals import paired_difference
from ledger import append
from progress import Report
from study_errors import DataError
from torch import nn

import espalier
from espalier.compression.convert import quant_modules
from espalier.quantized import QuantGRU

COLUMNS = (
    "key", "setting", "recordings", "module_accuracy", "program_accuracy",
    "module_cross_entropy", "program_cross_entropy", "difference", "low", "high",
    "equal_scores", "skipped_columns",
)  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """A program's ln of probabilities [N, 10], and the share of columns that it skipped."""

    log_probability: np.ndarray
    scores: np.ndarray
    skipped: float


def restore(study: Study, setting: Setting, threshold: int | None = None) -> nn.Module:
    """The compressed module of a finished run, with another delta threshold if one is given."""
    path = study.ledger.weights(setting.values())
    if not path.exists():
        raise DataError(f"{name(setting)}: {path} must be there; run the setting here first")
    x, lengths, _ = study.split(setting.split).training.padded(torch.arange(16))
    dense = study.dense(setting, lambda done, steps, loss: None)
    recipe = replace(setting.recipe(), method="gradual", score=None, allocation="uniform")
    model = espalier.compress(dense, recipe, calibration=[(x, lengths)])
    for module in quant_modules(model) if threshold is not None else ():
        if isinstance(module, QuantGRU):
            module.thresholds = dict.fromkeys(module.thresholds, threshold)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def run(program: espalier.Program, recordings: Recordings, report: Report) -> Answers:
    """Classify recordings one by one on the reference machine."""
    scores = []
    with espalier.open("reference") as device:
        session = device.load(program)
        for number, x in enumerate(recordings.features, 1):
            scores.append(session.run(x[None])[0])
            report(number, len(recordings), 0.0)
        counters = session.totals["run"]
    result = np.stack(scores)
    skipped = counters["skipped"] / (counters["skipped"] + counters["visits"])
    return Answers(torch.from_numpy(result).log_softmax(1).numpy(), result, skipped)


def check(study: Study, keys: Sequence[str], path: Path) -> str:
    """Compile finished runs and compare; rows are added to the table at `path`."""
    chosen = finished(study, keys)
    return append(path, (compare(study, each, setting) for each, setting in chosen.items()))


def finished(study: Study, keys: Sequence[str]) -> dict[str, Setting]:
    """The settings of some of the table's keys. Raises DataError for others."""
    known = {row["key"]: setting_of(row) for row in study.ledger.rows()}
    for each in keys:
        if each not in known:
            raise DataError(f"a key must be one of the table's: {', '.join(known)}; not {each!r}")
    return {each: known[each] for each in keys}


def compare(study: Study, key: str, setting: Setting) -> dict[str, object]:
    """Module and program on the same recordings; the difference is of cross-entropy."""
    model, test = restore(study, setting), study.split(setting.split).test
    program = espalier.compile(model, test.features[0][None], config=accelerator(setting.lanes))
    with Report(f"{setting} on the reference", 0) as report:
        answers = run(program, test, report)
    with torch.no_grad():
        scores = np.concatenate([model(x[None]).numpy() for x in test.features])
    module = torch.from_numpy(scores).log_softmax(1).numpy()
    rows, digits = np.arange(len(test)), test.digits.numpy()
    entropy = [-part[rows, digits] for part in (module, answers.log_probability)]
    difference = paired_difference(entropy[1], entropy[0])
    accuracy = [(part.argmax(1) == digits).mean() for part in (module, answers.log_probability)]
    values = [
        key, name(setting), len(test), *accuracy, entropy[0].mean(), entropy[1].mean(),
        difference.value, difference.low, difference.high,
        np.all(scores == answers.scores, axis=1).mean(), answers.skipped,
    ]  # fmt: skip
    rounded = [round(float(v), 5) if isinstance(v, float | np.floating) else v for v in values]
    return dict(zip(COLUMNS, rounded, strict=True))
