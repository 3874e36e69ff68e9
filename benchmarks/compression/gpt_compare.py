"""Paired intervals, table and figure of the study of the character model, from its runs."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from gpt_settings import RETRAINED, Setting
from intervals import paired_difference
from ledger import Ledger

BLOCK = 16
"""Windows of the test, 1,024 characters, that a bootstrap draws together: neighbours are alike."""
COLUMNS = "first", "second", "seeds", "blocks", "cross_entropy", "low", "high", "bits_a_character"

MEANS = "stored", "validation_cross_entropy", "test_cross_entropy"


def setting_of(row: dict[str, str]) -> Setting:
    """The setting that a row of the table came from."""
    kinds = {"str": str, "int": int, "float": float}
    return Setting(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(Setting)})


def name(setting: Setting) -> str:
    """Without the seed."""
    return str(setting).rpartition(", seed")[0]


def found(ledger: Ledger) -> dict[Setting, np.ndarray]:
    """Cross-entropies [seeds, blocks] of the test by setting, whose seed is that of the first."""
    values = defaultdict(list)
    for row in ledger.rows():
        predictions = ledger.predictions(row)
        if predictions is not None:
            each = predictions["test"]
            blocks = each[: len(each) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(1)
            values[replace(setting_of(row), seed=0)].append(blocks)
    return {setting: np.stack(each) for setting, each in values.items()}


def pairs(settings: list[Setting]) -> Iterator[tuple[Setting, Setting]]:
    """Each compressed setting with the dense ones; the hardware's pattern with the yardstick,
    rounded weights with floats, and ways to train with the usual one."""
    for first in settings:
        if not first.is_dense:
            yield from ((first, second) for second in settings if _compared(first, second))


def _compared(first: Setting, second: Setting) -> bool:
    if second.is_dense:
        return True
    if second.method == "continue":
        return first.steps > 0 and first is not second
    changed = {f.name for f in fields(Setting) if getattr(first, f.name) != getattr(second, f.name)}
    if changed == {"pattern"}:
        return second.pattern == "fine-grained"
    if changed == {"weight_bits"}:
        return second.weight_bits == 32
    usual = replace(RETRAINED, density=second.density, pattern=second.pattern)
    ways = {"method", "distillation", "calibration", "steps", "learning_rate"}
    return bool(changed) and changed <= ways and second == usual and first.method != "round"


def write(ledger: Ledger, folder: Path) -> str:
    """The table of differences in `folder`; as text too."""
    values = found(ledger)
    lines, table = [], []
    for first, second in pairs(list(values)):
        difference = paired_difference(values[first], values[second])
        numbers = [round(x, 5) for x in (difference.value, difference.low, difference.high)]
        shape = len(values[first]), values[first].shape[1]
        bits = round(difference.value / math.log(2), 5)
        table.append([name(first), name(second), *shape, *numbers, bits])
        lines.append(f"{name(first)}\n    minus {name(second)}: {difference} nats")
    with (folder / "gpt_differences.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])
    return "\n".join(lines)


def markdown(ledger: Ledger) -> str:
    """The page's table: means over seeds, differences to the dense model trained on."""
    values, rows = found(ledger), defaultdict(list)
    for row in ledger.rows():
        rows[replace(setting_of(row), seed=0)].append(row)
    continued = next((s for s in values if s.method == "continue"), None)
    lines = ["| model | stored | seeds | validation | test | test, minus dense trained on |"]
    lines += ["|---|---|---|---|---|---|"]
    for setting, each in rows.items():
        mean = {c: np.mean([float(r[c]) for r in each]) for c in MEANS}
        cells = [name(setting), f"{mean['stored']:.4f}", str(len(each))]
        cells += [f"{mean['validation_cross_entropy']:.4f}", f"{mean['test_cross_entropy']:.4f}"]
        cells.append("")
        if continued and setting != continued and setting in values:
            d = paired_difference(values[setting], values[continued])
            cells[-1] = f"{d.value:+.4f} [{d.low:.4f}, {d.high:.4f}]"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(ledger: Ledger, folder: Path) -> str:
    """The figure: cross-entropy of the test over density, a line for each pattern and bit width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = defaultdict(lambda: defaultdict(list))
    figure, axis = plt.subplots(figsize=(7, 4.5))
    for row in ledger.rows():
        setting, value = setting_of(row), float(row["test_cross_entropy"])
        usual = replace(RETRAINED, density=setting.density, pattern=setting.pattern)
        if replace(setting, seed=0, weight_bits=32) == usual:
            bits = "floats" if setting.weight_bits == 32 else f"W{setting.weight_bits}"
            points[setting.pattern, bits][setting.density].append(value)
        elif setting.method in ("train", "continue") and not setting.seed:
            style, label = (":", "dense") if setting.is_dense else ("--", "dense, trained on")
            axis.axhline(value, color="gray", linestyle=style, label=label)
    colors = {bits: f"C{i}" for i, bits in enumerate(("floats", "W8", "W4"))}
    for (pattern, bits), places in sorted(points.items()):
        densities = sorted(places)
        style = "--" if pattern == "fine-grained" else "-"
        axis.plot(
            densities, [np.mean(places[d]) for d in densities], f"o{style}",
            color=colors[bits], label=f"{pattern}, {bits}", markersize=4,
        )  # fmt: skip
    ticks = sorted({d for places in points.values() for d in places})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"1/{1 / tick:.0f}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="share of the blocks' weights kept", ylabel="cross-entropy of the test (nats)")
    axis.legend(fontsize=8)
    figure.suptitle(f"Character GPT-2 on Tiny Shakespeare, {RETRAINED.steps} steps of retraining")
    figure.tight_layout()
    figure.savefig(folder / "gpt_density.png", dpi=120)
    plt.close(figure)
    return str(folder / "gpt_density.png")
