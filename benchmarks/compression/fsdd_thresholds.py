"""Delta thresholds set after training: what holding back small differences skips, and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fsdd_compare import name
from fsdd_compiled import finished, restore
from fsdd_model import log_probabilities, measures
from fsdd_settings import Setting
from fsdd_study import Study
from ledger import append, read_table

from espalier.compression.temporal import skipped_columns

THRESHOLDS = (0, 1, 2, 4, 8, 12, 16, 24, 32)
"""In steps of a column's 8 bits."""


def sweep(study: Study, keys: Sequence[str], path: Path) -> str:
    """Rows of finished runs at every threshold that the table at `path` lacks, added to it."""
    there = {(row["key"], int(row["threshold"])) for row in read_table(path)}
    chosen = finished(study, keys)
    return append(path, (row for each in chosen.items() for row in rows(study, *each, there)))


def rows(
    study: Study, key: str, setting: Setting, there: set[tuple[str, int]]
) -> Iterator[dict[str, object]]:
    """Accuracy and cross-entropy, and shares of columns that the validation recordings skip."""
    split = study.split(setting.split)
    for threshold in (t for t in THRESHOLDS if (key, t) not in there):
        model = restore(study, setting, threshold)
        row: dict[str, object] = {"key": key, "setting": name(setting), "threshold": threshold}
        for part in ("validation", "test"):
            recordings = getattr(split, part)
            values = measures(log_probabilities(model, recordings), recordings.digits)
            for measure, value in zip(("accuracy", "cross_entropy"), values, strict=True):
                row[f"{part}_{measure}"] = round(value, 5)
        skipped = skipped_columns(model, [x[None] for x in split.validation.features])
        row |= {f"skipped_{matrix}": round(share, 4) for matrix, share in skipped.items()}
        yield row
