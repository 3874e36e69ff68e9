"""`espalier doctor`: what works on this board, what does not, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from .shared import console, load, read_config, read_options

if TYPE_CHECKING:
    from .checks import Check

MARKS = {True: "[green]ok  [/]", False: "[bold red]FAIL[/]", None: "[yellow]?   [/]"}


def doctor_command(
    device: Annotated[
        str, typer.Option("--device", "-d", help="`espalier devices` lists them.")
    ] = "de1-soc",
    option: Annotated[
        list[str] | None, typer.Option(help="Device option as name=value; may be repeated.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option(help="Check that the machine is this program's.")
    ] = None,
    config: Annotated[
        str, typer.Option(help="The machine that a simulator is to be; a board says what it is.")
    ] = "DE1_SOC",
) -> None:
    """Check FPGA, bridges, bitstream, memory, interrupt, and a network with a known answer."""
    from .checks import examine

    loaded = None if program is None else load(program)
    checks = examine(device, dict(read_options(option or [])), read_config(config), loaded)
    if sum([report(check) for check in checks]):
        raise typer.Exit(1)
    console.print(f"{device} is ready", highlight=False)


def report(check: Check) -> bool:
    """Print one line, and what to do where it is needed; is it a failure?"""
    line = f"{MARKS[check.fine]} {escape(check.what)}: {escape(check.result)}"
    console.print(line, highlight=False, soft_wrap=True)
    if not check.fine and check.advice:
        console.print(f"     -> {escape(check.advice)}", highlight=False, soft_wrap=True)
    return check.fine is False
