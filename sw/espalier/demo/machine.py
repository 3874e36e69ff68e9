"""The compiled model on the reference, on the RTL, and in the performance model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..perf import CLOCK_HZ, Step, dense_macs, simulate
from ..program import Program
from ..runtime import open as open_device
from ..spec.isa import Opcode

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Run:
    """Scores [B, 10] of a run, with the events of all inferences: clearing the state and 8 rows
    each."""

    scores: np.ndarray
    inferences: int
    steps: int
    counters: dict[str, int]


@dataclass(frozen=True)
class Cost:
    """Mean cost of one inference on one configuration."""

    config: str
    source: str
    cycles: float
    busy: float
    actual_per_cycle: float
    effective_per_cycle: float

    @property
    def microseconds(self) -> float:
        return self.cycles / CLOCK_HZ * 1e6


def run(
    program: Program, images: np.ndarray, device: str, progress: Progress, **options: Any
) -> Run:
    """Classify `images` one by one."""
    scores = []
    with open_device(device, **options) as opened:
        session = opened.load(program)
        before = dict(session.totals["reset"])
        for number, image in enumerate(images, 1):
            scores.append(session.run(image[np.newaxis]))
            progress(number, len(images))
        totals = session.totals
    counters = {name: totals["reset"][name] - before[name] + totals["run"][name] for name in before}
    return Run(np.concatenate(scores), len(images), images.shape[1], counters)


def measured(program: Program, run: Run) -> Cost:
    """Cost by the counters of the hardware."""
    c = run.counters
    return _cost(program, run, "simulated", c["cycles"], c["product_cycles"], c["words"])


def modelled(program: Program, images: np.ndarray, progress: Progress) -> tuple[Run, Cost]:
    """Cost by the performance model, with the exact work of these images from the reference
    machine."""
    trace: list[Step] = []
    result = run(
        program, images, "reference", progress,
        observer=lambda pc, instruction, work: trace.append(Step(pc, instruction, work)),
    )  # fmt: skip
    timelines = [simulate(program.config, part) for part in _runs(trace)[-2 * len(images) :]]
    cycles, products, words = (
        sum(getattr(timeline, name) for timeline in timelines)
        for name in ("cycles", "product_cycles", "words")
    )
    return result, _cost(program, result, "modelled", cycles, products, words)


def _runs(trace: list[Step]) -> list[list[Step]]:
    """One list of steps from each start to its HALT."""
    runs: list[list[Step]] = [[]]
    for step in trace:
        runs[-1].append(step)
        if step.instruction.opcode is Opcode.HALT:
            runs.append([])
    return runs[:-1]


def _cost(
    program: Program, run: Run, source: str, cycles: float, products: float, words: float
) -> Cost:
    config = program.config
    return Cost(
        config=config.name,
        source=source,
        cycles=cycles / run.inferences,
        busy=words / (config.arrays * products),
        actual_per_cycle=2 * words * config.lanes / cycles,
        effective_per_cycle=2 * dense_macs(program, run.steps) * run.inferences / cycles,
    )
