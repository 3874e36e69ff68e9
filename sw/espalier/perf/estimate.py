"""What a program will cost on its accelerator, before anything is built or run."""

from __future__ import annotations

from dataclasses import dataclass

from ..program import Program
from ..spec.config import BEAT_BYTES, Config
from .timing import Latencies, Timeline, simulate
from .trace import trace

CLOCK_HZ = 100e6
"""Assumed clock until a vendor fit is at hand."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Modelled cost of one run of `steps` time steps; two operations (multiply, add) per
    multiply-accumulate.

    `actual` counts the stored entries that are multiplied (digits), `effective` the
    multiply-accumulates of the dense model.
    """

    config: Config
    steps: int
    cycles: int
    product_cycles: int
    words: float
    dense_macs: int
    read_bytes: int
    write_bytes: int
    clock_hz: float

    @property
    def busy(self) -> float:
        """Share of the lane-cycles that multiply while a product runs."""
        return (
            self.words / (self.config.arrays * self.product_cycles) if self.product_cycles else 0.0
        )

    @property
    def actual_per_cycle(self) -> float:
        """Operations per cycle on stored entries."""
        return 2 * self.words * self.config.lanes / self.cycles

    @property
    def effective_per_cycle(self) -> float:
        """Operations per cycle in terms of the dense model."""
        return 2 * self.dense_macs / self.cycles

    @property
    def actual_gops(self) -> float:
        return self.actual_per_cycle * self.clock_hz / 1e9

    @property
    def effective_gops(self) -> float:
        return self.effective_per_cycle * self.clock_hz / 1e9

    @property
    def microseconds(self) -> float:
        return self.cycles / self.clock_hz * 1e6


def dense_macs(program: Program, steps: int) -> int:
    """Multiply-accumulates of the uncompressed model over `steps` time steps."""
    return sum(
        layer.rows * layer.columns * (steps if layer.per_step else 1) for layer in program.layers
    )


def of_timeline(
    program: Program, steps: int, timeline: Timeline, clock_hz: float = CLOCK_HZ
) -> Estimate:
    """The estimate that belongs to a simulated timeline, of expected or of exact work."""
    return Estimate(
        config=program.config,
        steps=steps,
        cycles=timeline.cycles,
        product_cycles=timeline.product_cycles,
        words=timeline.words,
        dense_macs=dense_macs(program, steps),
        read_bytes=timeline.read_beats * BEAT_BYTES,
        write_bytes=timeline.write_beats * BEAT_BYTES,
        clock_hz=clock_hz,
    )


def estimate(
    program: Program,
    *,
    entry: str = "run",
    steps: int = 1,
    nonzero: float = 1.0,
    clock_hz: float = CLOCK_HZ,
    latencies: Latencies | None = None,
) -> Estimate:
    """Cycles, operations and DDR bytes of one run of `steps` time steps.

    nonzero: expected share of the columns that are visited (nonzero activations or deltas), 0..1.
    Raises ValueError for values out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not 0 <= nonzero <= 1:
        raise ValueError(f"nonzero must be in 0..1, not {nonzero}")
    timeline = simulate(program.config, trace(program, entry, steps, nonzero), latencies)
    return of_timeline(program, steps, timeline, clock_hz)
