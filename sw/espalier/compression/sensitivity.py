"""What every matrix' density and bits do to the loss, one matrix at a time.

rows = sensitivity(model, measure, calibration=x, densities=(1 / 2, 1 / 4, 1 / 8), table="s.csv")
layers = choose(rows, budget=40_000)
recipe = Recipe(layers=layers)

`measure(model)` gives the validation figures by name, "loss" among them. A table is written row by
row, so that an interrupted analysis continues where it was.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, RecipeError
from ..spec.numerics import WEIGHT_LEVELS
from .recipe import Recipe
from .run import Run
from .weights import Weight

Measure = Callable[[nn.Module], Mapping[str, float]]
FLOAT = 0
"""Bits of a matrix that is not rounded."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The model with one matrix at a density and bits, all others as they were.

    size, entries: weights of the matrix; stored 4-bit digits, without padding.
    figures: what `measure` gave.
    """

    name: str
    size: int
    density: float
    bits: int
    figures: Mapping[str, float]

    @property
    def loss(self) -> float:
        return self.figures["loss"]

    @property
    def entries(self) -> float:
        return self.size * self.density * max(1, self.bits // 4)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.name, f"{self.density:.6g}", self.bits


def sensitivity(
    model: nn.Module,
    measure: Measure,
    *,
    densities: Sequence[float] = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16),
    bits: Sequence[int] = (8, 4),
    recipe: Recipe | None = None,
    calibration: Any = None,
    table: str | Path | None = None,
    progress: Callable[[int, int, Sensitivity], None] | None = None,
) -> list[Sensitivity]:
    """Measure every matrix at every density and bit width, pruned at once; `model` is not touched.

    Arguments
    ---------
    measure: figures of a model by name; "loss" must be among them.
    bits: 4, 8, or FLOAT for no rounding. Activations stay real numbers.
    recipe: its score, pattern and config are used.
    calibration: sample inputs, for scores that need them.
    table: CSV file that is written, and continued when it exists.
    progress: called with (done, all, row).
    """
    wishes = {} if recipe is None else vars(recipe)
    wishes = {**wishes, "density": 1.0, "weight_bits": 8, "layers": {}, "arithmetic": "weights"}
    for value in bits:
        if value not in (FLOAT, *WEIGHT_LEVELS):
            raise RecipeError(f"bits must be 4, 8 or {FLOAT} for floats, not {value!r}")
    run = Run(model, Recipe(**{**wishes, "method": "one-shot"}), 0, calibration)
    if run.score.calibrated:
        run.collect(run.weights)
    for weight in run.weights:
        weight.holder.float_mode = True
    path = None if table is None else Path(table)
    known = {} if path is None else {row.key: row for row in _resume(path)}
    plan = [(w, d, b) for w in run.weights for d in densities for b in bits]
    rows = []
    for done, (weight, density, width) in enumerate(plan, 1):
        row = known.get((weight.name, f"{density:.6g}", width))
        if row is None:
            row = _measured(run, weight, density, width, measure)
            if path is not None:
                append(path, row)
        rows.append(row)
        if progress is not None:
            progress(done, len(plan), row)
    return rows


@torch.no_grad()
def _measured(run: Run, weight: Weight, density: float, bits: int, measure: Measure) -> Sensitivity:
    mask = weight.project(run.score(weight, weight.value), density)
    holder = weight.holder
    weight.set_mask(mask)
    try:
        if bits != FLOAT:
            holder.bits, holder.float_mode = bits, False
            holder.update_scales(weight.parameter)
        figures = dict(measure(run.model.eval()))
    finally:
        holder.float_mode = True
        weight.set_mask(torch.ones_like(mask))
    if "loss" not in figures:
        raise InputError(f"measure must return a 'loss'; it returns {', '.join(figures) or None}")
    for name, value in figures.items():
        if value != value:
            raise InputError(f"{name} must be a number; it is NaN for {weight.name} at {density}")
    return Sensitivity(
        name=weight.name, size=weight.size, density=density, bits=bits, figures=figures
    )


def append(path: Path, row: Sensitivity) -> None:
    """Add a row to a table, with a heading if it is the first."""
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["matrix", "size", "density", "bits", *row.figures])
        values = (f"{value:.6g}" for value in row.figures.values())
        writer.writerow([row.name, row.size, f"{row.density:.6g}", row.bits, *values])


def _resume(path: Path) -> list[Sensitivity]:
    """The rows of a table, if there is one; a line that a killed run left open is cut off."""
    if not path.exists():
        return []
    text = path.read_text()
    path.write_text(text[: text.rfind("\n") + 1])
    return load(path)


def load(path: str | Path) -> list[Sensitivity]:
    """The rows of a table."""
    try:
        with Path(path).open(newline="") as file:
            return [_row(values) for values in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no table of sensitivities ({error}): remove it") from None


def _row(values: dict[str, str]) -> Sensitivity:
    names = "matrix", "size", "density", "bits"
    name, size, density, bits = (values.pop(name) for name in names)
    return Sensitivity(
        name=name,
        size=int(size),
        density=float(density),
        bits=int(bits),
        figures={key: float(value) for key, value in values.items()},
    )


def by_matrix(rows: Sequence[Sensitivity]) -> Iterator[tuple[str, list[Sensitivity]]]:
    """The rows of each matrix, in order."""
    for name in dict.fromkeys(row.name for row in rows):
        yield name, [row for row in rows if row.name == name]


def plot(rows: Sequence[Sensitivity], path: str | Path, figure: str = "loss") -> None:
    """Draw a figure over the density, a panel for each matrix, a line for each bit width."""
    from matplotlib.figure import Figure

    panels = list(by_matrix(rows))
    canvas = Figure(figsize=(3 * min(4, len(panels)), 2.5 * -(-len(panels) // 4)))
    axes = canvas.subplots(-(-len(panels) // 4), min(4, len(panels)), sharey=True, squeeze=False)
    for (name, mine), axis in zip(panels, axes.flat, strict=False):
        for bits in dict.fromkeys(row.bits for row in mine):
            line = [(row.density, row.figures[figure]) for row in mine if row.bits == bits]
            label = f"{bits} bits" if bits else "float"
            axis.plot(*zip(*sorted(line), strict=True), marker="o", markersize=3, label=label)
        axis.set_xscale("log", base=2)
        axis.set_title(name, fontsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes[0][0].legend(fontsize=7)
    canvas.supxlabel("density")
    canvas.supylabel(figure)
    canvas.tight_layout()
    canvas.savefig(path, dpi=150)
