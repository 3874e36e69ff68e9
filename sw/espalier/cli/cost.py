"""`espalier estimate`: what a program will cost on its accelerator, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..program import Program
from .look import chip
from .shared import UsageError, console, load, size

if TYPE_CHECKING:
    from ..perf import Estimate


def estimate_command(
    program: Annotated[Path, typer.Argument(help="Program file.")],
    steps: Annotated[int, typer.Option(help="Time steps of a sequence.")] = 100,
    nonzero: Annotated[
        float, typer.Option(help="Expected share of columns with something to send, 0 to 1.")
    ] = 1.0,
) -> None:
    """Estimate cycles, DDR bytes and fit of a program."""
    from ..perf import estimate

    loaded = load(program)
    try:
        costs = {
            "loading weights": estimate(loaded, entry="setup"),
            "first time step": estimate(loaded, steps=1, nonzero=nonzero),
            f"{steps} time steps": estimate(loaded, steps=steps, nonzero=nonzero),
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    clock = next(iter(costs.values())).clock_hz / 1e6
    console.print(
        f"{program} on {loaded.config.name}, {loaded.config.total_lanes} lanes, {nonzero:.0%} of "
        f"the columns sent; microseconds at an assumed clock of {clock:.0f} MHz",
        highlight=False,
        soft_wrap=True,
    )
    console.print(table(costs))
    console.print(chip(loaded))
    console.print(resident(loaded, costs[f"{steps} time steps"], steps), highlight=False)


def table(costs: dict[str, Estimate]) -> Table:
    result = Table("", *costs, title="Modelled cost")
    rows = {
        "cycles": lambda cost: f"{cost.cycles:,}",
        "microseconds": lambda cost: f"{cost.microseconds:,.1f}",
        "busy share of lane-cycles in products": lambda cost: f"{cost.busy:.1%}",
        "operations a cycle, actual": lambda cost: f"{cost.actual_per_cycle:,.1f}",
        "operations a cycle, dense-equivalent": lambda cost: f"{cost.effective_per_cycle:,.1f}",
        "GOPS, dense-equivalent": lambda cost: f"{cost.effective_gops:,.2f}",
        "DDR read": lambda cost: size(cost.read_bytes),
        "DDR written": lambda cost: size(cost.write_bytes),
    }
    for name, text in rows.items():
        idle = not name.startswith(("cycles", "micro", "DDR"))  # no products in a load: no rate
        result.add_row(name, *("" if idle and not c.words else text(c) for c in costs.values()))
    for column in result.columns[1:]:
        column.justify = "right"
    return result


def resident(program: Program, run: Estimate, steps: int) -> str:
    """Whether weights stay on the chip: then a step reads its inputs only."""
    inputs = sum(port.stride_bytes for port in program.inputs if port.time_axis is not None)
    if run.read_bytes <= 2 * inputs * steps:
        return "Weights stay on the chip: a time step reads its inputs only."
    return f"Weights are streamed: a time step reads {size(run.read_bytes / steps)} from DDR."
