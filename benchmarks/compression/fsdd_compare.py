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
    """The setting that a row of the table came from."""
    kinds = {"str": str, "int": int, "float": float}
    setting = Setting(**{f.name: kinds[f.type](row[f.name]) for f in fields(Setting)})
    return replace(setting, density=1 / round(1 / setting.density, 2))  # the table rounds it


def runs(ledger: Ledger) -> Runs:
    """Predictions by setting (with seed 0) and seed, where they are at hand."""
    result: Runs = defaultdict(dict)
    for row in ledger.rows():
        setting, predictions = setting_of(row), ledger.predictions(row)
        if predictions is not None:
            result[replace(setting, seed=0)][setting.seed] = predictions
    return result


def pairs(settings: list[Setting]) -> Iterator[tuple[Setting, Setting]]:
    """Each compressed setting with the dense one, and with what differs from it in one thing."""
    for first in settings:
        if not first.is_dense:
            yield from ((first, second) for second in settings if _compared(first, second))


def _compared(first: Setting, second: Setting) -> bool:
    """Whether a pair is worth a row: with dense; any pattern with the yardstick; uniform with
    chosen k; more lanes with fewer; a method with the default."""
    changed = {f.name for f in fields(Setting) if getattr(first, f.name) != getattr(second, f.name)}
    if second in (first.dense, first.longer):
        return True
    if second.pattern == "fine-grained":
        plain = second.method == Setting.method
        return changed in ({"pattern"}, {"pattern", "lanes"}) or (
            changed == {"pattern", "method"} and plain and first.epochs > 0
        )
    return (
        (changed == {"lanes"} and first.lanes > second.lanes)
        or (changed == {"pattern"} and first.pattern == "uniform-k")
        or (changed == {"method"} and second.method == Setting.method and second.epochs > 0)
    )


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
