"""Rounding of a small GRU on scikit-learn's handwritten digits: docs/quantization.md.

    python benchmarks/compression/quantization.py              # three seeds, minutes on one core

Rows of 8 standardized pixels through a linear layer and ReLU into a GRU of 64 units: pixels at the
border, that are seldom inked, make inputs of up to 37 standard deviations; 99 % are below 2.7.
Nothing is chosen by the test digits. Writes benchmarks/results/compression/quantization.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from intervals import paired_difference
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from espalier.compression import Recipe, compress
from espalier.compression.bits import bit_sensitivity, choose_bits, set_bits
from espalier.demo.data import Digits, digits
from espalier.demo.model import Batches

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "compression" / "quantization.csv"
FLOAT_EPOCHS, EPOCHS = 20, 10
LEARNING_RATE, PRUNING_RATE = 2e-3, 1e-2
BASE = "max, max"


class Reader(nn.Module):
    """Ten class scores [B, 10] of a digit's rows [B, T=8, F=8]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Linear(8, 32), nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.gru(torch.relu(self.embed(rows)))[0][:, -1])


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A row of the table: a recipe, whether it trains, entries (of 4 bits) to choose bits under."""

    group: str
    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    trains: bool = False
    entries: float = 0.0


def scales(weights: str, activations: str, **options: Any) -> dict[str, Any]:
    return {"weight_scales": weights, "activation_scales": activations, **options}


def settings() -> Iterator[Setting]:
    """Names are "scales of weights, of activations"."""
    at_once = {
        "8 bits: max, max": scales("max", "max", weight_bits=8),
        BASE: scales("max", "max"),
        "error, max": scales("error", "max"),
        "output, max": scales("output", "max"),
        "error, percentile 99.9": scales("error", "percentile", percentile=99.9),
        "error, mse": scales("error", "mse"),
        "error, max, smoothing 0.5": scales("error", "max", smoothing=0.5),
        "output, mse": scales("output", "mse"),
        "output, mse, smoothing 0.5": scales("output", "mse", smoothing=0.5),
    }
    for name, recipe in at_once.items():
        yield Setting(group="at once", name=name, recipe=recipe)
    recipe = scales("output", "mse", weight_bits=8)
    yield Setting(
        group="at once", name="output, mse, 8 bits for a quarter", recipe=recipe, entries=1.25
    )
    for pair in (("max", "max"), ("error", "mse"), ("learned", "mse"), ("learned", "learned")):
        yield Setting(group="trained", name=", ".join(pair), recipe=scales(*pair), trains=True)
    for pair in (("max", "max"), ("error", "mse"), ("learned", "learned")):
        recipe = scales(*pair, prune_end=0.4, distillation=0.5, layers={"gru": {"density": 1 / 8}})
        name = ", ".join(pair)
        yield Setting(group="trained, 1/8 of the GRU", name=name, recipe=recipe, trains=True)
    for threshold, penalty in ((0, 0.0), (8, 0.0), (8, 2.0), (16, 0.0), (16, 2.0)):
        name = f"threshold {threshold}, penalty {penalty:g}"
        recipe = scales("learned", "learned", delta_penalty=penalty)
        recipe["layers"] = {"gru": {"delta_threshold": threshold}}
        yield Setting(group="differences", name=name, recipe=recipe, trains=True)


def data() -> tuple[Digits, Callable[[np.ndarray], Tensor]]:
    """The digits, and what standardizes rows by the training digits' pixels."""
    read = digits()
    mean, deviation = read.train.mean(0), read.train.std(0)

    def standardize(rows: np.ndarray) -> Tensor:
        return torch.from_numpy((rows - mean) / np.where(deviation > 0, deviation, 1))

    return read, standardize


def train_float(batches: Batches, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = Reader()
    optimizer = torch.optim.Adam(model.parameters())
    total = FLOAT_EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total)
    for _ in range(FLOAT_EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def compressed(model: nn.Module, setting: Setting, batches: Batches, seed: int) -> nn.Module:
    options = {"density": 1.0, "allocation": "uniform", "prune_end": 0.2, "updates": 5}
    recipe, calibration = Recipe(**options | setting.recipe), [batches.rows]
    if setting.trains:
        torch.manual_seed(seed)
        rate = LEARNING_RATE if recipe.matrix("gru", "weight_hh_l0").density == 1 else PRUNING_RATE
        return compress(
            model, recipe, batches=batches, loss=loss, epochs=EPOCHS, learning_rate=rate,
            calibration=calibration,
        )  # fmt: skip
    small = compress(model, recipe, calibration=calibration)
    if setting.entries:
        found = bit_sensitivity(small, calibration)
        entries = int(setting.entries * sum(each.entries for each in found))
        set_bits(small, choose_bits(found, entries))
    return small


@torch.no_grad()
def measure(model: nn.Module, rows: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, and cross-entropy, of each digit."""
    scores = model(rows)
    each = cross_entropy(scores, labels, reduction="none")
    return (scores.argmax(1) == labels).double().numpy(), each.double().numpy()


def run(seeds: list[int]) -> tuple[list[dict[str, Any]], dict[tuple[str, str], list[np.ndarray]]]:
    """Rows of the CSV, and the cross-entropies by group and name, a row a seed."""
    read, standardize = data()
    test, labels = standardize(read.test), torch.from_numpy(read.test_labels)
    batches = Batches(standardize(read.train), torch.from_numpy(read.train_labels))
    rows, losses, date = [], {}, datetime.date.today().isoformat()
    for seed in seeds:
        start = time.perf_counter()
        model = train_float(batches, seed)
        for setting in (Setting(group="float", name="float"), *settings()):
            small = model
            if setting.group != "float":
                start = time.perf_counter()
                small = compressed(model, setting, batches, seed)
            seconds = time.perf_counter() - start
            right, each = measure(small, test, labels)
            report = getattr(small, "espalier_report", None)
            shares = {m.name: m.skipped for m in report.matrices} if report else {}
            losses.setdefault((setting.group, setting.name), []).append(each)
            rows.append(
                {
                    "group": setting.group,
                    "setting": setting.name,
                    "seed": seed,
                    "accuracy": f"{right.mean():.4f}",
                    "cross_entropy": f"{each.mean():.5f}",
                    "skipped_input": f"{shares.get('gru.weight_ih_l0', 0):.4f}",
                    "skipped_hidden": f"{shares.get('gru.weight_hh_l0', 0):.4f}",
                    "seconds": f"{seconds:.1f}",
                    "date": date,
                }
            )
            print(", ".join(map(str, rows[-1].values())), flush=True)
    return rows, losses


def table(rows: list[dict[str, Any]], losses: dict[tuple[str, str], list[np.ndarray]]) -> str:
    """Means over seeds, with the paired interval of cross-entropy against the group's first.

    Seeds are float models, the same in both of a pair: their mean is taken for each digit, and the
    interval is over digits.
    """
    lines = [
        "| | scales of weights, activations | accuracy | cross-entropy | against the first (95 %) |"
        " GRU columns skipped: inputs, states |",
        "|---|---|---:|---:|---:|---:|",
    ]
    first = {"at once": BASE}
    for group, name in losses:
        same = [row for row in rows if (row["group"], row["setting"]) == (group, name)]

        def mean(column: str, same: list[dict[str, Any]] = same) -> float:
            return float(np.mean([float(row[column]) for row in same]))

        reference = first.setdefault(group, name)
        versus = ""
        if reference != name:
            pair = (np.mean(losses[group, each], axis=0) for each in (name, reference))
            versus = str(paired_difference(*pair))
        lines.append(
            f"| {group} | {name} | {mean('accuracy'):.2%} | {mean('cross_entropy'):.4f} |"
            f" {versus} | {mean('skipped_input'):.0%}, {mean('skipped_hidden'):.0%} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    wishes = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows, losses = run(wishes.seeds)
    wishes.results.parent.mkdir(parents=True, exist_ok=True)
    with wishes.results.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows, losses))


if __name__ == "__main__":
    main()
