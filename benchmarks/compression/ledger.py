"""Finished runs: a row of a CSV each, and beside it what the run predicted.

A row is appended when its run is finished, so a killed study loses the run in progress and nothing
else; a setting whose row is there is not run again. Predictions are too large to commit; they lie
under build/ by the setting's key.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

KEY_DIGITS = 12


def key(setting: Mapping[str, Any]) -> str:
    """Short name of a setting: equal for equal values, in any order."""
    text = json.dumps({name: str(value) for name, value in setting.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Add rows to the table at `path`, each as soon as it is there; as text too."""
    lines = []
    for row in rows:
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        lines.append(" ".join(f"{column}={value}" for column, value in row.items()))
    return "\n".join(lines)


class Ledger:
    """The CSV at `path`, predictions and weights in `folder`."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder

    def rows(self) -> list[dict[str, str]]:
        """All finished runs."""
        return read_table(self.path)

    def finished(self, setting: Mapping[str, Any]) -> bool:
        return any(row["key"] == key(setting) for row in self.rows())

    def add(
        self,
        setting: Mapping[str, Any],
        results: Mapping[str, Any],
        predictions: Mapping[str, np.ndarray],
    ) -> dict[str, Any]:
        """Keep a finished run; gives its row. ValueError: the CSV has other columns."""
        row = {"key": key(setting), **setting, **results}
        rows = self.rows()
        if rows and list(rows[0]) != list(row):
            raise ValueError(
                f"{self.path} must have columns {', '.join(row)}, not {', '.join(rows[0])}: "
                "move it away"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.folder / f"{row['key']}.npz", **predictions)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if not rows:
                writer.writeheader()
            writer.writerow(row)
        return row

    def predictions(self, row: Mapping[str, str]) -> dict[str, np.ndarray] | None:
        """What a run predicted; none when it ran elsewhere."""
        path = self.folder / f"{row['key']}.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            return dict(file)

    def weights(self, setting: Mapping[str, Any]) -> Path:
        """Where a run's state_dict lies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key(setting)}.pt"

    def checkpoint(self, setting: Mapping[str, Any]) -> Path:
        """Where a run keeps what it goes on from when it is killed."""
        return self.weights(setting).with_suffix(".running")
