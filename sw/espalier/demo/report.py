"""What the demo shows: one table, report.json with the same figures, and a plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..perf import CLOCK_HZ
from .machine import Cost

CAPTION = (
    "8 bits: all weights kept. SMALL: the RTL, simulated. DE1_SOC: the reference machine, and the "
    f"performance model. {CLOCK_HZ / 1e6:.0f} MHz are assumed. CPU: one thread, batch 1."
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One column of the table: a model somewhere; None where a figure does not apply."""

    name: str
    accuracy: float
    size_bytes: int
    cost: Cost | None = None
    latency_us: dict[str, float] | None = None
    """By what ran it."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How many images the RTL gave the reference's scores on, to the last bit."""

    images: int
    equal: int

    def __str__(self) -> str:
        return f"{self.equal} of {self.images}"


@dataclass(frozen=True, kw_only=True)
class Report:
    variants: list[Variant]
    """Float first: the others' sizes are compared with it."""
    agreement: Agreement
    test_images: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All figures, those of `Cost` with microseconds beside."""
        data = asdict(self)
        for variant, plain in zip(self.variants, data["variants"], strict=True):
            if variant.cost is not None:
                plain["cost"]["microseconds"] = variant.cost.microseconds
        return {**data, "clock_hz": CLOCK_HZ, "clock_origin": "assumed"}

    def table(self) -> Table:
        names = (variant.name for variant in self.variants)
        table = Table("", *names, title="Digits, row by row", caption=CAPTION)
        for name, cells in self._rows().items():
            table.add_row(name, *cells)
        table.columns[0].no_wrap = True
        for column in table.columns[1:]:
            column.justify = "right"
        return table

    def _rows(self) -> dict[str, list[str]]:
        whole = self.variants[0].size_bytes
        costs = [variant.cost for variant in self.variants]
        timed = {name: None for variant in self.variants for name in variant.latency_us or ()}

        def of_cost(form: str, name: str) -> list[str]:
            return ["" if cost is None else format(getattr(cost, name), form) for cost in costs]

        return {
            f"accuracy, {self.test_images} digits": [f"{v.accuracy:.1%}" for v in self.variants],
            "parameters or program, KiB": [f"{v.size_bytes / 1024:.1f}" for v in self.variants],
            "smaller by": [f"{whole / v.size_bytes:.1f} x" for v in self.variants],
            "same bits as the reference": [
                str(self.agreement) if cost and cost.source == "simulated" else "" for cost in costs
            ],
            "cycles a digit": of_cost(",.0f", "cycles"),
            "lane-cycles busy in products": of_cost(".1%", "busy"),
            "operations a cycle, actual": of_cost(".1f", "actual_per_cycle"),
            "operations a cycle, dense-equivalent": of_cost(".1f", "effective_per_cycle"),
            "us a digit on the accelerator": of_cost(".1f", "microseconds"),
            **{
                f"us a digit on this CPU, {name}": [
                    f"{v.latency_us[name]:.1f}" if v.latency_us else "" for v in self.variants
                ]
                for name in timed
            },
        }

    def save(self, folder: Path) -> None:
        """Write report.json and digits.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_json(), indent=2) + "\n")
        plot(self, folder / "digits.png")


def plot(report: Report, path: Path) -> None:
    """Size and accuracy on the left, time for one digit on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = [variant.name for variant in report.variants]
    bars = left.bar(names, [variant.size_bytes / 1024 for variant in report.variants])
    left.bar_label(bars, [f"{variant.accuracy:.1%}" for variant in report.variants])
    left.set(ylabel="size, KiB", title=f"Size, and accuracy on {report.test_images} digits")
    times = latencies(report)
    right.bar_label(right.barh(list(times), list(times.values())), fmt="%.1f")
    right.set(xlabel=f"us a digit, accelerators at an assumed {CLOCK_HZ / 1e6:.0f} MHz")
    right.set(title="Time for one digit at batch 1")
    right.margins(x=0.15)
    left.tick_params(axis="x", labelsize="small")
    figure.savefig(path, dpi=120)


def latencies(report: Report) -> dict[str, float]:
    """Microseconds a digit of everything that was timed."""
    times = {}
    for variant in report.variants:
        times.update({f"{name}, this CPU": us for name, us in (variant.latency_us or {}).items()})
        if variant.cost is not None:
            times[f"{variant.cost.config} ({variant.cost.source})"] = variant.cost.microseconds
    return times
