"""The demo from end to end, with a progress bar for everything that takes seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from ..compiler.frontend import compile
from ..program import Program
from ..spec.config import DE1_SOC, SMALL, ULX3S
from . import cpu, machine, train
from .data import Digits, digits
from .report import Agreement, Report, Variant

console = Console(width=None if sys.stdout.isatty() else 100)
Update = Callable[..., None]


@contextmanager
def step(text: str) -> Iterator[Update]:
    """A progress bar; call what it gives with (done, total)."""
    columns = TextColumn("{task.description:48}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=None)

        def update(done: int, total: int, loss: float | None = None) -> None:
            progress.update(task, completed=done, total=total)

        yield update
        progress.update(task, completed=1, total=1)


def run(folder: Path, *, images: int | None = None, epochs: int = 25) -> Report:
    """Run everything, print the table, write report.json and the plot into `folder`.

    images: how many of the test's digits the machines see; default all. epochs: of float training;
        compression
    takes somewhat fewer.
    """
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = digits()
    with step(f"Training a GRU on {len(data.train)} digits") as update:
        model = train.train_float(data, epochs=epochs, progress=update)
    with step("Compressing it while it trains on") as update:
        small = train.train_compressed(model, data, epochs=-(-epochs * 2 // 3), progress=update)
    programs = {
        config.name: compile(small, example(data), config=config)
        for config in (SMALL, DE1_SOC, ULX3S)
    }
    for name, program in programs.items():
        program.save(folder / f"digits_{name}.espalier")
    variants, agreement = execute(programs, data, images)
    report = Report(
        variants=[*baselines(model, small, programs, data, folder), *variants],
        agreement=agreement,
        test_images=len(data.test),
        seconds=time.perf_counter() - start,
    )
    report.save(folder)
    console.print(report.table())
    console.print(
        f"{folder}/report.json, {folder}/digits.png: {report.seconds:.0f} seconds", highlight=False
    )
    return report


def example(data: Digits) -> torch.Tensor:
    return torch.from_numpy(data.train[:2])


def accuracy(scores: np.ndarray, data: Digits) -> float:
    return float((scores.argmax(1) == data.test_labels[: len(scores)]).mean())


def scores(model: nn.Module, data: Digits) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(data.test)).numpy()


def baselines(
    model: nn.Module, small: nn.Module, programs: dict[str, Program], data: Digits, folder: Path
) -> list[Variant]:
    """The models as PyTorch runs them; a compressed one's size is that of its program, all
    included."""
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    dense = train.dense_8_bit(model, data)
    with step("Timing the float model on this CPU"):
        latency = {
            "PyTorch": cpu.pytorch(model, data.test[0]),
            "ONNX Runtime": cpu.onnx(model, data.test[0], folder),
        }
    return [
        Variant(
            name="float", accuracy=accuracy(scores(model, data), data), size_bytes=size,
            latency_us=latency,
        ),
        Variant(
            name="8 bits", accuracy=accuracy(scores(dense, data), data),
            size_bytes=len(compile(dense, example(data), config=DE1_SOC).image),
        ),
        Variant(
            name="compressed", accuracy=accuracy(scores(small, data), data),
            size_bytes=len(programs["DE1_SOC"].image),
        ),
    ]  # fmt: skip


def execute(
    programs: dict[str, Program], data: Digits, images: int | None
) -> tuple[list[Variant], Agreement]:
    """The programs on the machines: SMALL as RTL, DE1_SOC on the reference and in the model."""
    test = data.test[:images]
    variants = []
    with step(f"{len(test)} digits on the reference, DE1_SOC") as update:
        reference, cost = machine.modelled(programs["DE1_SOC"], test, update)
    variants.append((reference, cost))
    with step(f"{len(test)} digits on the reference, SMALL") as update:
        expected = machine.run(programs["SMALL"], test, "reference", update)
    with step(f"{len(test)} digits on the RTL, SMALL") as update:
        real = machine.run(programs["SMALL"], test, "rtl", update)
    equal = int((real.scores == expected.scores).all(1).sum())
    variants.insert(0, (real, machine.measured(programs["SMALL"], real)))
    return [
        Variant(
            name=f"{cost.config}", accuracy=accuracy(run.scores, data), cost=cost,
            size_bytes=len(programs[cost.config].image),
        )
        for run, cost in variants
    ], Agreement(images=len(test), equal=equal)  # fmt: skip
