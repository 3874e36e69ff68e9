"""Paired intervals between settings of the study, from what their runs predicted on the test."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from fsdd_settings import Setting
from intervals import Difference, paired_difference
from ledger import Ledger, key

COLUMNS = (
    "first", "second", "recordings", "seeds_first", "seeds_second",
    "accuracy_points", "accuracy_low", "accuracy_high",
    "cross_entropy", "cross_entropy_low", "cross_entropy_high",
)  # fmt: skip
Runs = dict[Setting, dict[int, dict[str, np.ndarray]]]


def setting_of(row: dict[str, str]) -> Setting:
    """The setting that a row of the table came from; its density rounded as the table has it."""
    kinds = {"str": str, "int": int, "float": float}
    return Setting(**{f.name: kinds[f.type](row[f.name]) for f in fields(Setting)})


def runs(ledger: Ledger) -> Runs:
    """Predictions by setting (with seed 0) and seed, where they are at hand."""
    result: Runs = defaultdict(dict)
    for row in ledger.rows():
        setting, predictions = setting_of(row), ledger.predictions(row)
        if predictions is not None:
            result[replace(setting, seed=0)][setting.seed] = predictions
    return result


def pairs(settings: list[Setting]) -> Iterator[tuple[Setting, Setting]]:
    """What the issue compares: with dense, with fine-grained, k per column with uniform, lanes."""
    for first in settings:
        if first.is_dense:
            continue
        for second in settings:
            same = replace(
                first, pattern=second.pattern, lanes=second.lanes,
                delta_threshold=second.delta_threshold,
            ) == second  # fmt: skip
            if second == first.dense or (same and second != first and _ordered(first, second)):
                yield first, second


def _ordered(first: Setting, second: Setting) -> bool:
    """Whether the pair is worth a row: each once, with one thing changed."""
    if first.delta_threshold != second.delta_threshold:
        alike = (first.pattern, first.lanes) == (second.pattern, second.lanes)
        return alike and second.delta_threshold == 0
    if second.pattern == "fine-grained":
        return True
    if first.pattern == second.pattern:
        return first.lanes > second.lanes
    return first.pattern == "uniform-k" and first.lanes == second.lanes


def values(by_seed: dict[int, dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Right answers in points (0 or 100) and cross-entropies, [seeds, recordings] of the test."""
    right, entropy = [], []
    for _, predictions in sorted(by_seed.items()):
        scores, digits = predictions["test"], predictions["test_digits"]
        right.append(100.0 * (scores.argmax(1) == digits))
        entropy.append(-scores[np.arange(len(digits)), digits])
    return np.array(right), np.array(entropy)


def write(ledger: Ledger, path: Path) -> str:
    """The table of differences; as text too."""
    found = runs(ledger)
    order = sorted(found, key=lambda s: (s.split, str(s), key(s.values())))
    lines, table = [], []
    for first, second in pairs(order):
        parts = [values(found[each]) for each in (first, second)]
        accuracy, entropy = (paired_difference(a, b) for a, b in zip(*parts, strict=True))
        shapes = [part[0].shape for part in parts]
        table.append(
            [name(first), name(second), shapes[0][1], shapes[0][0], shapes[1][0]]
            + [round(v, 4) for d in (accuracy, entropy) for v in (d.value, d.low, d.high)]
        )
        lines.append(f"{name(first)}\n    minus {name(second)}: {text(accuracy, entropy)}")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *table])
    return "\n".join(lines)


def name(setting: Setting) -> str:
    """The setting without its seed."""
    return str(setting).removesuffix(f", seed {setting.seed}")


def text(accuracy: Difference, entropy: Difference) -> str:
    return f"{accuracy} points, cross-entropy {entropy}"
