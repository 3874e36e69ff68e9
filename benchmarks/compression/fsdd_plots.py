"""Figures of the study from its table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from fsdd_compare import setting_of
from fsdd_data import OFFICIAL
from fsdd_settings import Setting, way

from espalier.spec.config import DE1_SOC

Row = dict[str, str]
MEASURES = {
    "test_cross_entropy": ("cross-entropy on the test (nats)", 1.0),
    "test_accuracy": ("accuracy on the test (%)", 100.0),
}
MARKERS = "osD^v<>PX*hdp"


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Write a figure for each question of which there are rows; gives their paths."""
    kept = [(setting_of(row), row) for row in rows]
    kept = [(setting, row) for setting, row in kept if setting.split == OFFICIAL]
    figures = {
        "fsdd_density.png": (densities, "share of the weights kept"),
        "fsdd_lanes.png": (lanes, "lanes of an array"),
        "fsdd_methods.png": (methods, "share of the weights kept"),
    }
    return [
        path
        for file, (choose, label) in figures.items()
        if (path := figure(kept, choose, label, folder / file))
    ]


def densities(setting: Setting) -> tuple[str, float] | None:
    if setting.is_dense or setting.method != Setting.method or not setting.epochs:
        return None
    lanes = "" if setting.pattern == "fine-grained" else f", {setting.lanes} lanes"
    return setting.pattern + lanes, setting.density


def lanes(setting: Setting) -> tuple[str, float] | None:
    hardware = setting.pattern == "column-balanced" and setting.method == Setting.method
    if hardware and abs(setting.density - 1 / 12) < 1e-4:
        return "column-balanced, 1/12", setting.lanes
    return None


def methods(setting: Setting) -> tuple[str, float] | None:
    plain = setting.pattern == "column-balanced" and setting.lanes == DE1_SOC.lanes
    trained = setting.epochs > 0 and setting.weight_bits == 4
    return (way(setting), setting.density) if plain and trained else None


def figure(
    kept: list[tuple[Setting, Row]],
    choose: Callable[[Setting], tuple[str, float] | None],
    label: str,
    path: Path,
) -> Path | None:
    """Both measures over what `choose` gives of a setting (series, place); none without points."""
    points: dict[str, dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for setting, row in kept:
        if place := choose(setting):
            points[place[0]][place[1]].append(row)
    if not points:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shape, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, (column, (title, factor)) in zip(axes, MEASURES.items(), strict=True):
        for marker, (name, places) in zip(cycle(MARKERS), sorted(points.items()), strict=False):
            _series(axis, name, marker, places, column, factor)
        dense = [row for setting, row in kept if setting == setting.dense]
        if dense:
            level = factor * np.mean([float(row[column]) for row in dense])
            axis.axhline(level, color="gray", linestyle=":", label="dense, float")
        if choose is not lanes:
            axis.set_xscale("log", base=2)
            ticks = sorted({place for places in points.values() for place in places})
            axis.set_xticks(ticks, [f"1/{1 / tick:.0f}" for tick in ticks])
            axis.minorticks_off()
        axis.set(xlabel=label, ylabel=title)
    axes[0].legend(fontsize=6 if len(points) > 8 else 8)
    shape.suptitle(
        "Spoken digits, GRU 2x256, 4-bit weights; line: mean of seeds, marks: it and the seeds"
    )
    shape.tight_layout()
    shape.savefig(path, dpi=120)
    plt.close(shape)
    return path


def _series(
    axis: Any, name: str, marker: str, places: dict[float, list[Row]], column: str, factor: float
) -> None:
    order = sorted(places)
    values: list[Iterable[float]] = [[factor * float(r[column]) for r in places[x]] for x in order]
    means = [np.mean(v) for v in values]
    (line,) = axis.plot(order, means, f"-{marker}", markersize=4, label=name)
    for x, each in zip(order, values, strict=True):
        axis.plot([x] * len(each), each, marker, color=line.get_color(), markersize=4)
