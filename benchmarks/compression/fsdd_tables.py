"""The study's tables as Markdown, from what lies in benchmarks/results/compression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from fsdd_compare import name, setting_of
from fsdd_settings import DENSITIES, LANES, SPEAKERS, WAYS, Setting, once, way, winner
from ledger import read_table

Row = dict[str, str]
COLUMNS = "seeds", "stored", "validation", "test", "test, minus dense", "minus {other}"


class Results:
    """Finished runs by name (seeds together), and differences between names."""

    def __init__(self, folder: Path) -> None:
        self.runs: dict[str, list[Row]] = defaultdict(list)
        for row in read_table(folder / "fsdd.csv"):
            self.runs[name(setting_of(row))].append(row)
        self.differences = {
            (row["first"], row["second"]): row
            for row in read_table(folder / "fsdd_differences.csv")
        }

    def cells(self, setting: Setting, dense: Setting, other: Setting | None) -> list[str]:
        rows = self.runs[name(setting)]
        values = [str(len(rows)), f"{float(rows[0]['stored']):.4f}"]
        values += [_measures(rows, part) for part in ("validation", "test")]
        values.append(self.difference(setting, dense))
        return values if other is None else [*values, self.difference(setting, other)]

    def difference(self, first: Setting, second: Setting) -> str:
        """Points and cross-entropy with their intervals; nothing where they were not compared."""
        return difference_text(self.differences.get((name(first), name(second))))

    def table(
        self,
        title: str,
        settings: Iterable[tuple[str, Setting]],
        other: tuple[str, Callable[[Setting], Setting]] | None = None,
        dense: Callable[[Setting], Setting] = lambda setting: setting.dense,
    ) -> str:
        """A row for each setting that ran; `other` is a second one to compare each with."""
        found = [(label, s) for label, s in settings if name(s) in self.runs]
        columns = [title, *COLUMNS[: 5 if other is None else 6]]
        lines = [columns, ["---"] * len(columns)]
        for label, s in found:
            lines.append([label, *self.cells(s, dense(s), other and other[1](s))])
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return text.format(other=other[0]) if other else text


def difference_text(row: Row | None) -> str:
    """A row of differences as points / cross-entropy, with intervals; nothing for none."""
    if row is None:
        return ""
    parts = []
    for column, digits in (("accuracy", 2), ("cross_entropy", 3)):
        value = row["accuracy_points" if column == "accuracy" else column]
        low, high = row[f"{column}_low"], row[f"{column}_high"]
        mean, *ends = (f"{float(v):+.{digits}f}" for v in (value, low, high))
        parts.append(f"{mean} [{', '.join(ends)}]")
    return " / ".join(parts)


def _measures(rows: list[Row], part: str) -> str:
    accuracy = 100 * np.mean([float(row[f"{part}_accuracy"]) for row in rows])
    entropy = np.mean([float(row[f"{part}_cross_entropy"]) for row in rows])
    return f"{accuracy:.2f} / {entropy:.4f}"


def tables(folder: Path) -> str:
    """All tables; one that has no rows is left out."""
    results = Results(folder)
    plain = Setting()
    rounded = Setting(weight_bits=8, epochs=0, distillation=0.0)
    parts = [
        results.table(
            "model",
            [("dense, float", plain.dense), ("dense, longer", plain.longer), ("W8A8", rounded)]
            + [
                (f"{pattern} 1/{1 / density:g}", Setting(pattern=pattern, density=density))
                for pattern in ("column-balanced", "fine-grained")
                for density in sorted(DENSITIES, reverse=True)
            ],
            ("fine-grained", lambda s: replace(s, pattern="fine-grained")),
        ),
        results.table(
            "compressed, minus the longer dense model",
            [(f"column-balanced 1/{1 / d:g}", Setting(density=d)) for d in DENSITIES],
            dense=lambda s: s.longer,
        ),
        results.table(
            "lanes, column-balanced 1/12",
            [(str(each), Setting(density=1 / 12, lanes=each)) for each in LANES],
            ("fine-grained", lambda s: replace(s, pattern="fine-grained", lanes=plain.lanes)),
        ),
        results.table(
            "method",
            [
                (f"{way(s)} 1/{1 / density:g}", s)
                for density in (1 / 12, 1 / 24)
                for s in (Setting(method=each, density=density) for each in WAYS)
            ],
            (plain.method, lambda s: replace(s, method=plain.method)),
        ),
        results.table(
            "least squares, then trained",
            [(f"{s.pattern} 1/{1 / s.density:g}", s) for s in winner(0)],
            ("fine-grained", lambda s: replace(s, pattern="fine-grained")),
        ),
        results.table(
            "pruned once",
            [(f"{way(s)} 1/{1 / s.density:g}", s) for s in once(0)],
        ),
        results.table(
            "k, lanes",
            [
                (f"{pattern} 1/{1 / d:g}, {n}", Setting(pattern=pattern, density=d, lanes=n))
                for d, n in ((1 / 8, 32), (1 / 16, 16))
                for pattern in ("uniform-k", "column-balanced")
            ],
            ("k per column", lambda s: replace(s, pattern="column-balanced")),
        ),
        results.table(
            "speaker left out",
            [
                pair
                for speaker in SPEAKERS
                for s in [Setting(split=speaker, density=1 / 16)]
                for pair in ((f"{speaker}, dense", s.dense), (f"{speaker}, 1/16", s))
            ],
        ),
    ]
    return "\n\n".join(part for part in parts if part.count("\n") > 1)
