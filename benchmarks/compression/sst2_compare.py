"""Paired intervals, table and figure of the study of SST-2, from what its runs predicted."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from intervals import Difference, paired_difference
from ledger import Ledger
from sst2_settings import Setting

COLUMNS = (
    "first", "second", "seeds", "sentences", "accuracy_points", "accuracy_low", "accuracy_high",
    "cross_entropy", "cross_entropy_low", "cross_entropy_high",
)  # fmt: skip
MEANS = (
    "stored", "kept_of_all", "validation_accuracy", "validation_cross_entropy",
    "test_accuracy", "test_cross_entropy",
)  # fmt: skip
Values = tuple[np.ndarray, np.ndarray]


def setting_of(row: dict[str, str]) -> Setting:
    """The setting that a row of the table came from."""
    kinds = {"str": str, "int": int, "float": float}
    return Setting(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(Setting)})


def name(setting: Setting) -> str:
    """Without the seed."""
    return str(setting).rpartition(", seed")[0]


def found(ledger: Ledger) -> dict[Setting, Values]:
    """Right answers (0 or 100 points) and cross-entropies [seeds, sentences] of the test, by
    setting, whose seed is that of the first."""
    result = defaultdict(list)
    for row in ledger.rows():
        predictions = ledger.predictions(row)
        if predictions is None:
            continue
        scores, labels = predictions["test"], predictions["test_labels"]
        right = 100.0 * (scores.argmax(1) == labels)
        values = right, -scores[np.arange(len(labels)), labels]
        result[replace(setting_of(row), seed=0)].append(values)
    return {s: tuple(map(np.stack, zip(*v, strict=True))) for s, v in result.items()}


def pairs(settings: list[Setting]) -> Iterator[tuple[Setting, Setting]]:
    """Each compressed setting with the dense one; the hardware's pattern with the yardstick,
    rounded weights with floats, compressed words with whole ones."""
    for first in settings:
        if not first.is_dense:
            yield from ((first, second) for second in settings if _compared(first, second))


def _compared(first: Setting, second: Setting) -> bool:
    if second.is_dense:
        return True
    changed = {f.name for f in fields(Setting) if getattr(first, f.name) != getattr(second, f.name)}
    if changed == {"pattern"}:
        return second.pattern == "fine-grained"
    if changed == {"weight_bits"}:
        return first.steps > 0 and second.weight_bits == 32
    words = {"embedding_density", "embedding_bits"}
    return bool(changed) and changed <= words and second.embedding_density == 1


def write(ledger: Ledger, folder: Path) -> str:
    """The table of differences in `folder`; as text too."""
    values = found(ledger)
    lines, table = [], []
    for first, second in pairs(list(values)):
        accuracy, entropy = (
            paired_difference(a, b) for a, b in zip(values[first], values[second], strict=True)
        )
        numbers = [round(x, 4) for d in (accuracy, entropy) for x in (d.value, d.low, d.high)]
        table.append([name(first), name(second), *values[first][0].shape, *numbers])
        lines.append(f"{name(first)}\n    minus {name(second)}: {_text(accuracy, entropy)}")
    with (folder / "sst2_differences.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])
    return "\n".join(lines)


def _text(accuracy: Difference, entropy: Difference) -> str:
    return f"{accuracy} points, cross-entropy {entropy}"


def markdown(ledger: Ledger) -> str:
    """The page's table: means over seeds, differences to the dense model."""
    values, rows = found(ledger), defaultdict(list)
    for row in ledger.rows():
        rows[replace(setting_of(row), seed=0)].append(row)
    dense = next((s for s in values if s.is_dense), None)
    lines = [
        "| model | stored | of all | seeds | validation | development | minus dense |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting, each in rows.items():
        mean = {c: np.mean([float(r[c]) for r in each]) for c in MEANS}
        cells = [name(setting), f"{mean['stored']:.3f}", f"{mean['kept_of_all']:.3f}"]
        cells.append(str(len(each)))
        for part in ("validation", "test"):
            accuracy, entropy = mean[f"{part}_accuracy"], mean[f"{part}_cross_entropy"]
            cells.append(f"{100 * accuracy:.2f} / {entropy:.3f}")
        cells.append("")
        if dense and setting != dense and setting in values:
            pairs = zip(values[setting], values[dense], strict=True)
            points, nats = (paired_difference(*pair) for pair in pairs)
            text = f"{points.value:+.2f} [{points.low:.2f}, {points.high:.2f}] / "
            cells[-1] = text + f"{nats.value:+.3f} [{nats.low:.3f}, {nats.high:.3f}]"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(ledger: Ledger, folder: Path) -> str:
    """The figure: both measures on the test over density, a line for each way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [(setting_of(row), row) for row in ledger.rows()]
    names = list(dict.fromkeys(filter(None, (_series(setting) for setting, _ in rows))))
    kinds = list(dict.fromkeys(_kind(name) for name in names))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5))
    for axis, (column, label, factor) in zip(
        axes,
        (("test_cross_entropy", "cross-entropy on the development set (nats)", 1.0),
         ("test_accuracy", "accuracy on the development set (%)", 100.0)),
        strict=True,
    ):  # fmt: skip
        for name in names:
            points = sorted(
                (s.density, factor * float(row[column])) for s, row in rows if _series(s) == name
            )
            style = "--" if "fine-grained" in name else "-"
            color = f"C{kinds.index(_kind(name))}"
            line = zip(*points, strict=True)
            axis.plot(*line, f"o{style}", color=color, label=name, markersize=4)
        for setting, row in rows:
            if setting.is_dense:
                axis.axhline(factor * float(row[column]), color="gray", linestyle=":",
                             label="dense")  # fmt: skip
        axis.set(xlabel="share of the encoder's weights kept", ylabel=label, xscale="log")
        ticks = sorted({s.density for s, _ in rows if _series(s)})
        axis.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
        axis.minorticks_off()
    axes[1].legend(fontsize=7)
    figure.suptitle("MiniLM-L6 on SST-2: pruned once, and retrained")
    figure.tight_layout()
    figure.savefig(folder / "sst2_density.png", dpi=120)
    plt.close(figure)
    return str(folder / "sst2_density.png")


def _kind(name: str) -> str:
    """A series without its pattern: they share a colour."""
    return name.replace("column-balanced", "").replace("fine-grained", "")


def _series(setting: Setting) -> str | None:
    words = setting.embedding_density < 1 or setting.embedding_bits < 32
    if setting.density == 1 or setting.seed or words:
        return None
    bits = "" if setting.weight_bits == 32 else f", W{setting.weight_bits}"
    further = setting.method == "further"
    method = "sparsegpt" if further else setting.method  # what it goes on from
    after = ", retrained" if setting.steps or further else ""
    after += " with rounding" if setting.steps and further else ""
    return f"{method}, {setting.pattern}{bits}{after}"
