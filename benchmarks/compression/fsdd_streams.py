"""Continuous speech: how many columns a threshold in training lets the machine skip, at what cost.

    python benchmarks/compression/fsdd_streams.py --data DIR          # all runs, then the table
    python benchmarks/compression/fsdd_streams.py --data DIR --sweep  # thresholds set afterwards
    python benchmarks/compression/fsdd_streams.py --compare           # paired intervals of what ran

A model like that of fsdd.py listens to digits at 10 ms frames with pauses between them
(fsdd_stream_data.py) and names each one after its end. Rows: fsdd_streams.csv; their predictions
and weights lie in build/compression/fsdd_streams.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fused
import torch
from fsdd_model import SpeechReader
from fsdd_stream_compare import compare, table, values_of_test
from fsdd_stream_data import Stream, StreamBatches, collate, read_streams
from fsdd_stream_measures import MEASURES, SKIPPED, measured, the_gru
from fsdd_stream_settings import Setting, setting_of, settings
from fsdd_study import fast_products
from intervals import paired_difference
from ledger import Ledger, append, key, read_table
from study_cli import COMPARE, StudyCli, chosen
from study_errors import DataError
from study_runs import run
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import espalier

SWEEP = 0, 8, 12, 16, 24
"""Thresholds set after training, in steps of a column's 8 bits."""


class StreamReader(SpeechReader):
    """Class scores [B, K, 10] of frames [B, T, BANDS] from the states at the frames ends [B, K]."""

    def forward(self, x: Tensor, ends: Tensor | None = None) -> Tensor:
        """Without `ends`, at every frame."""
        states, _ = self.gru(x)  # [B, T, H]
        if ends is not None:
            states = states[torch.arange(len(x))[:, None], ends]
        return self.head(states)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, ends, digits = batch
    return cross_entropy(model(x, ends).flatten(0, 1), digits.flatten())


class Study:
    """The streams, and the ledger of runs."""

    def __init__(self, data: Path, ledger: Ledger) -> None:
        self.ledger, self.streams = ledger, read_streams(data)

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
        with fast_products():
            return espalier.compress(
                self.dense(setting),
                setting.recipe(),
                batches=batches,
                loss=loss,
                epochs=setting.epochs,
                learning_rate=setting.learning_rate,
                progress=progress,
            )

    def dense(self, setting: Setting) -> StreamReader:
        path, model = self.ledger.weights(setting.dense.values()), StreamReader()
        if not path.exists():
            raise DataError(f"{path} must be there: run {setting.dense} first")
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    def record(self, setting: Setting, model: nn.Module, seconds: float) -> None:
        values, predictions = measured(model, self.streams, setting.density < 1)
        row = dict.fromkeys((*MEASURES, *SKIPPED), "") | values
        row |= {"seconds": round(seconds, 1), "date": datetime.date.today().isoformat()}
        self.ledger.add(setting.values(), row, predictions)

    def sweep(self, path: Path) -> None:
        """Set other thresholds in finished runs that the table at `path` lacks; rows are added."""
        there = {row["key"] for row in read_table(path)}
        for setting in map(setting_of, self.ledger.rows()):
            name = key(setting.values())
            if setting.density < 1 and name not in there:
                rows = swept(self.restore(setting), self.streams)
                append(path, ({"key": name, "setting": str(setting), **row} for row in rows))

    def restore(self, setting: Setting) -> nn.Module:
        x, ends, _ = collate(self.streams["training"][:8])
        model = espalier.compress(self.dense(setting), setting.recipe(), calibration=[(x, ends)])
        weights = self.ledger.weights(setting.values())
        model.load_state_dict(torch.load(weights, weights_only=True))
        return model.eval()


def swept(model: nn.Module, streams: dict[str, list[Stream]]) -> Iterator[dict[str, float]]:
    """Measures at every threshold of SWEEP, and how the test differs from the first one's."""
    gru, first = the_gru(model), None
    for threshold in SWEEP:
        gru.thresholds = dict.fromkeys(gru.thresholds, threshold)
        row, predictions = measured(model, streams, True)
        right, entropy = values_of_test([predictions])
        first = first or (right, entropy)
        pairs = {"points": (right, first[0]), "cross_entropy": (entropy, first[1])}
        for name, pair in pairs.items():
            found = paired_difference(*pair)
            values = {"": found.value, "_low": found.low, "_high": found.high}
            row |= {f"minus_0_{name}{end}": round(v, 4) for end, v in values.items()}
        yield {"threshold": threshold, **row}


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


def intervals(ledger: Ledger, folder: Path) -> str:
    path = folder / "fsdd_streams_differences.csv"
    return f"{compare(ledger, path)}\n\n{table(ledger, path)}"


CLI = StudyCli(
    name="fsdd_streams",
    description=__doc__,
    files="fsdd.npz",
    views={"compare": (COMPARE, intervals)},
)


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 2 for an error."""
    parser = CLI.parser()
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0])
    add("--plain", action="store_true", help="train without the C loops, see fused.py")
    add("--sweep", action="store_true", help="set other thresholds in finished runs, and stop")
    return CLI.main(parser.parse_args(argv), act)


def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
    study = Study(wishes.data, ledger)
    if not wishes.plain:
        fused.install(wishes.build)
    if wishes.sweep:
        study.sweep(wishes.results / "fsdd_streams_sweep.csv")
        return 0
    run(chosen((s for n in wishes.seeds for s in settings(n)), wishes.only), ledger, study.finish)
    print(intervals(ledger, wishes.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
