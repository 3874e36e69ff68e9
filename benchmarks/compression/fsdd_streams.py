"""Continuous speech: how many columns a threshold in training lets the machine skip, at what cost.

    python benchmarks/compression/fsdd_streams.py --data DIR     # all runs, then the table
    python benchmarks/compression/fsdd_streams.py --compare      # paired intervals of what ran

A model like that of fsdd.py listens to digits at 10 ms frames with pauses between them
(fsdd_stream_data.py) and names each one after its end. Rows: fsdd_streams.csv; their predictions
and weights lie in build/compression/fsdd_streams.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import fused
import numpy as np
import torch
from fsdd import RESULTS, ROOT
from fsdd_compare import COLUMNS
from fsdd_data import DataError
from fsdd_model import SpeechReader
from fsdd_stream_data import Stream, StreamBatches, collate, read_streams
from fsdd_study import fast_products
from intervals import paired_difference
from ledger import Ledger
from progress import Report
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import espalier
from espalier import Recipe
from espalier.compression.convert import quant_modules
from espalier.compression.temporal import differences, watching
from espalier.errors import EspalierError
from espalier.quantized import QuantGRU

BUILD = ROOT / "build" / "compression" / "fsdd_streams"
EVALUATION_BATCH = 24
MATRICES = "weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"
SKIPPED = ("skipped", "skipped_speech", "skipped_pauses", *(f"skipped_{m}" for m in MATRICES))


class StreamReader(SpeechReader):
    """Class scores [B, K, 10] of frames [B, T, BANDS] from the states at the frames ends [B, K]."""

    def forward(self, x: Tensor, ends: Tensor | None = None) -> Tensor:
        """Without `ends`, at every frame."""
        states, _ = self.gru(x)  # [B, T, H]
        if ends is not None:
            states = states[torch.arange(len(x))[:, None], ends]
        return self.head(states)


MEASURES = tuple(
    f"{part}_{name}" for part in ("validation", "test") for name in ("accuracy", "cross_entropy")
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """density 1 is the dense model in floats; thresholds in steps of a column's 8 bits."""

    density: float = 1 / 12
    threshold: int = 0
    penalty: float = 0.0
    epochs: int = 6
    learning_rate: float = 1e-2
    batch: int = 24
    distillation: float = 0.5
    seed: int = 0

    @property
    def dense(self) -> Setting:
        return Setting(
            density=1.0, epochs=8, learning_rate=4e-3, distillation=0.0, seed=self.seed
        )  # fmt: skip

    def recipe(self) -> Recipe:
        return Recipe(
            density=self.density,
            delta_threshold=self.threshold,
            delta_penalty=self.penalty,
            distillation=self.distillation,
            layers={"head": {"density": 0.5, "delta_threshold": 0}},
        )

    def __str__(self) -> str:
        if self.density == 1:
            return f"dense, seed {self.seed}"
        penalty = f", penalty {self.penalty:g}" if self.penalty else ""
        return f"1/{1 / self.density:g}, threshold {self.threshold}{penalty}, seed {self.seed}"

    def values(self) -> dict[str, object]:
        return {**asdict(self), "density": round(self.density, 6)}


def settings(seed: int) -> list[Setting]:
    """In order of value."""
    plain = Setting(seed=seed)
    trained = [replace(plain, threshold=t) for t in (16, 8, 32)]
    return [plain.dense, plain, trained[0], replace(trained[0], penalty=2.0), *trained[1:]]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, ends, digits = batch
    return cross_entropy(model(x, ends).flatten(0, 1), digits.flatten())


class Study:
    """The streams, and the ledger of runs."""

    def __init__(self, data: Path, ledger: Ledger) -> None:
        self.ledger, self.streams = ledger, read_streams(data)

    def run(self, wanted: Sequence[Setting]) -> None:
        left = [s for s in wanted if not self.ledger.finished(s.values())]
        for number, setting in enumerate(left):
            title = f"{number + 1}/{len(left)} {setting}"
            with Report(title, len(left) - number - 1) as report:
                self.finish(setting, report)

    def finish(self, setting: Setting, progress: Callable[[int, int, float], None]) -> None:
        start = time.monotonic()
        torch.manual_seed(setting.seed)
        batches = StreamBatches(self.streams["training"], setting.batch)
        if setting.density == 1:
            model: nn.Module = train_dense(batches, setting, progress)
        else:
            model = self.compress(setting, batches, progress)
        seconds = time.monotonic() - start
        torch.save(model.state_dict(), self.ledger.weights(setting.values()))
        self.record(setting, model, seconds)

    def compress(
        self, setting: Setting, batches: StreamBatches, progress: Callable[[int, int, float], None]
    ) -> nn.Module:
        dense = StreamReader()
        path = self.ledger.weights(setting.dense.values())
        if not path.exists():
            raise DataError(f"{path} must be there: run {setting.dense} first")
        dense.load_state_dict(torch.load(path, weights_only=True))
        with fast_products():
            return espalier.compress(
                dense.eval(),
                setting.recipe(),
                batches=batches,
                loss=loss,
                epochs=setting.epochs,
                learning_rate=setting.learning_rate,
                progress=progress,
            )

    def record(self, setting: Setting, model: nn.Module, seconds: float) -> None:
        row: dict[str, object] = {}
        predictions = {}
        for part in ("validation", "test"):
            scores, digits = log_probabilities(model, self.streams[part])
            right = scores.argmax(1) == digits
            row[f"{part}_accuracy"] = round(float(right.mean()), 5)
            entropy = -scores[np.arange(len(digits)), digits]
            row[f"{part}_cross_entropy"] = round(float(entropy.mean()), 5)
            predictions |= {part: scores, f"{part}_digits": digits}
        row |= skipping(model, self.streams["test"]) if setting.density < 1 else {}
        row |= {"seconds": round(seconds, 1), "date": datetime.date.today().isoformat()}
        row = dict.fromkeys(MEASURES, "") | dict.fromkeys(SKIPPED, "") | row
        self.ledger.add(setting.values(), row, predictions)


def train_dense(
    batches: StreamBatches, setting: Setting, progress: Callable[[int, int, float], None]
) -> StreamReader:
    """The float model from a random start; Adam, one cycle of the learning rate."""
    model, steps = StreamReader(), setting.epochs * len(batches)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, setting.learning_rate, steps)
    for epoch in range(setting.epochs):
        for number, batch in enumerate(batches, 1):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress(epoch * len(batches) + number, steps, value.item())
    return model.eval()


@torch.no_grad()
def log_probabilities(model: nn.Module, streams: list[Stream]) -> tuple[np.ndarray, np.ndarray]:
    """ln of the digits' probabilities [N, 10] (float32), and the digits [N]."""
    scores, digits = [], []
    for first in range(0, len(streams), EVALUATION_BATCH):
        x, ends, expected = collate(streams[first : first + EVALUATION_BATCH])
        scores.append(model(x, ends).log_softmax(-1).flatten(0, 1))
        digits.append(expected.flatten())
    return torch.cat(scores).numpy(), torch.cat(digits).numpy()


def skipping(model: nn.Module, streams: list[Stream]) -> dict[str, float]:
    """Shares of the GRU's columns that are not sent: of all, in speech, in pauses, by matrix."""
    (gru,) = (module for module in quant_modules(model) if isinstance(module, QuantGRU))
    still: dict[str, list[Tensor]] = {name: [] for name in MATRICES}
    with watching(model):
        for stream in streams:
            model(stream.features[None])
            for name in MATRICES:
                still[name].append(differences(gru.sent[name])[:, 0] == 0)  # [T, N]
    by_matrix = {name: torch.cat(parts).float() for name, parts in still.items()}
    every = torch.cat([*by_matrix.values()], dim=1).mean(1)  # [frames], all columns alike
    speech = torch.cat([stream.speech for stream in streams])
    shares = every.mean(), every[speech].mean(), every[~speech].mean()
    values = [*shares, *(part.mean() for part in by_matrix.values())]
    return {name: round(float(v), 4) for name, v in zip(SKIPPED, values, strict=True)}


def compare(ledger: Ledger, path: Path) -> str:
    """Test differences with the dense model and with threshold 0, over all seeds that ran."""
    runs: dict[Setting, list[dict[str, np.ndarray]]] = {}
    for row in ledger.rows():
        predictions = ledger.predictions(row)
        if predictions is not None:
            runs.setdefault(replace(setting_of(row), seed=0), []).append(predictions)
    table, lines = [], []
    for first, second in pairs(list(runs)):
        right, entropy = zip(*(values(runs[each]) for each in (first, second)), strict=True)
        both = [paired_difference(*right), paired_difference(*entropy)]
        numbers = [round(v, 4) for d in both for v in (d.value, d.low, d.high)]
        names = [str(each).removesuffix(", seed 0") for each in (first, second)]
        table.append([*names, right[0].shape[1], len(right[0]), len(right[1]), *numbers])
        lines.append(f"{names[0]} minus {names[1]}: {both[0]} points, {both[1]}")
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])
    return "\n".join(lines)


def pairs(found: list[Setting]) -> list[tuple[Setting, Setting]]:
    """Each compressed setting with the dense model, and each threshold with none."""
    return [
        (first, second)
        for first in found
        for second in (first.dense, replace(first, threshold=0, penalty=0.0))
        if first.density < 1 and second in found and first != second
    ]


def values(runs: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Right answers in points and cross-entropies, [seeds, digits] of the test."""
    right, entropy = [], []
    for predictions in runs:
        scores, digits = predictions["test"], predictions["test_digits"]
        right.append(100.0 * (scores.argmax(1) == digits))
        entropy.append(-scores[np.arange(len(digits)), digits])
    return np.array(right), np.array(entropy)


def setting_of(row: dict[str, str]) -> Setting:
    kinds = {"int": int, "float": float}
    return Setting(**{f.name: kinds[f.type](row[f.name]) for f in fields(Setting)})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder with fsdd.npz")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--only", metavar="TEXT", nargs="+", help="runs that have one of the texts in their names")
    add("--threads", type=int, default=1, help="of torch")
    add("--plain", action="store_true", help="train without the C loops, see fused.py")
    add("--results", type=Path, default=RESULTS, help="folder of the tables")
    add("--build", type=Path, default=BUILD, help="folder of predictions and weights")
    add("--compare", action="store_true", help="write paired intervals of finished runs, and stop")
    wishes = parser.parse_args(argv)
    torch.set_num_threads(wishes.threads)
    ledger = Ledger(wishes.results / "fsdd_streams.csv", wishes.build)
    try:
        if not wishes.compare:
            if wishes.data is None:
                raise DataError("--data must name the folder with fsdd.npz")
            if not wishes.plain:
                fused.install(wishes.build)
            wanted = [s for seed in wishes.seeds for s in settings(seed)]
            if wishes.only:
                wanted = [s for s in wanted if any(text in str(s) for text in wishes.only)]
            Study(wishes.data, ledger).run(wanted)
        print(compare(ledger, wishes.results / "fsdd_streams_differences.csv"))
    except (DataError, EspalierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
