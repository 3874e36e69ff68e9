"""The command line: `espalier compress`, `compile`, `run`, `inspect`, `estimate`, `demo`,
`devices`, `doctor`, `version`.

One command a file; what they share is in `shared`. A command imports what it needs when it runs, so
that `espalier run` works on a board without torch. Nobody ever sees a traceback unless he asks for
it with `--debug`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.traceback import Traceback

from ..errors import EspalierError
from . import build, compress, cost, devices, doctor, info, launch, look
from .shared import console, errors, options

app = typer.Typer(
    name="espalier",
    help="Compressed PyTorch GRUs on a small FPGA, the same integers everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks instead of messages.")
    ] = False,
) -> None:
    options.debug = debug


app.command("compress")(compress.compress_command)
app.command("compile")(build.compile_command)
app.command("run")(launch.run_command)
app.command("inspect")(look.inspect_command)
app.command("estimate")(cost.estimate_command)
app.command("demo")(info.demo_command)
app.command("devices")(devices.devices_command)
app.command("doctor")(doctor.doctor_command)
app.command("version")(info.version_command)


def main() -> None:
    """Run the command line; exit status 1 with a message in red when anything goes wrong."""
    try:
        app()
    except EspalierError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted")
    except Exception as error:
        fail(f"unexpected {type(error).__name__}: {error}; --debug shows where")


def fail(message: str) -> None:
    """Print the current exception's traceback (with --debug) and the message, and exit with 1."""
    if options.debug:
        errors.print(Traceback())
    errors.print("error:", style="bold red", end=" ")
    errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


__all__ = ["app", "console", "main"]
