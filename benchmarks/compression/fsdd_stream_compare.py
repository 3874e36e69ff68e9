"""Continuous speech: paired intervals between finished runs, and their table as Markdown."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from fsdd_compare import COLUMNS
from fsdd_stream_settings import Setting, setting_of
from fsdd_tables import difference_text
from intervals import paired_difference
from ledger import Ledger, read_table

HEAD = (
    "model", "seeds", "validation", "test", "test, minus dense", "columns skipped", "in speech",
    "in pauses",
)  # fmt: skip


def table(ledger: Ledger, differences: Path) -> str:
    """A row for each setting: means over the seeds that ran."""
    compared = {(row["first"], row["second"]): row for row in read_table(differences)}
    settings: dict[str, list[dict[str, str]]] = {}
    for row in ledger.rows():
        name = str(setting_of(row)).removesuffix(f", seed {row['seed']}")
        settings.setdefault(name, []).append(row)
    lines = [HEAD, ["---"] * len(HEAD)]
    for name, rows in settings.items():
        measures = [_measures(rows, part) for part in ("validation", "test")]
        percent = [
            f"{100 * _mean(rows, column):.1f} %" if rows[0][column] else ""
            for column in ("skipped", "skipped_speech", "skipped_pauses")
        ]
        difference = difference_text(compared.get((name, "dense")))
        lines.append([name, str(len(rows)), *measures, difference, *percent])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measures(rows: list[dict[str, str]], part: str) -> str:
    accuracy, entropy = (_mean(rows, f"{part}_{name}") for name in ("accuracy", "cross_entropy"))
    return f"{100 * accuracy:.2f} / {entropy:.4f}"


def _mean(rows: list[dict[str, str]], column: str) -> float:
    return float(np.mean([float(row[column]) for row in rows]))


def compare(ledger: Ledger, path: Path) -> str:
    """Test differences with the dense model and with threshold 0, over all seeds that ran."""
    runs: dict[Setting, list[dict[str, np.ndarray]]] = {}
    for row in ledger.rows():
        predictions = ledger.predictions(row)
        if predictions is not None:
            runs.setdefault(replace(setting_of(row), seed=0), []).append(predictions)
    table, lines = [], []
    for first, second in pairs(list(runs)):
        right, entropy = zip(*(values_of_test(runs[each]) for each in (first, second)), strict=True)
        both = [paired_difference(*right), paired_difference(*entropy)]
        numbers = [round(v, 4) for d in both for v in (d.value, d.low, d.high)]
        names = [str(each).removesuffix(", seed 0") for each in (first, second)]
        table.append([*names, right[0].shape[1], len(right[0]), len(right[1]), *numbers])
        lines.append(f"{names[0]} minus {names[1]}: {both[0]} points, {both[1]}")
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])
    return "\n".join(lines)


def pairs(found: list[Setting]) -> list[tuple[Setting, Setting]]:
    """Each compressed setting with the dense model, and each threshold with none."""
    return [
        (first, second)
        for first in found
        for second in (first.dense, replace(first, threshold=0, penalty=0.0))
        if first.density < 1 and second in found and first != second
    ]


def values_of_test(runs: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Right answers in points and cross-entropies, [seeds, digits] of the test."""
    right, entropy = [], []
    for predictions in runs:
        scores, digits = predictions["test"], predictions["test_digits"]
        right.append(100.0 * (scores.argmax(1) == digits))
        entropy.append(-scores[np.arange(len(digits)), digits])
    return np.array(right), np.array(entropy)
