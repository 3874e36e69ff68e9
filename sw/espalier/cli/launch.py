"""`espalier run`: a program on a device, arrays from and to files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track
from rich.table import Table

from ..errors import InputError
from ..program import Program
from .shared import UsageError, console, load, read_array, read_options


def run_command(
    program: Annotated[Path, typer.Argument(help="Program file.")],
    input: Annotated[
        list[Path] | None,
        typer.Option(
            "--input", "-i", help="A .npy file for each input, in the model's order and shape."
        ),
    ] = None,
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="A .npy file for each output.")
    ] = None,
    lengths: Annotated[
        Path | None, typer.Option(help="A .npy file with the length of each sample.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", "-d", help="`espalier devices` lists them.")
    ] = "reference",
    option: Annotated[
        list[str] | None, typer.Option(help="Device option as name=value; may be repeated.")
    ] = None,
) -> None:
    """Run a program on whole sequences."""
    from ..runtime import open as open_device

    loaded = load(program)
    arrays = [read_array(path) for path in input or []]
    if output and len(output) != len(loaded.outputs):
        names = ", ".join(port.name for port in loaded.outputs)
        raise UsageError(
            f"the program has the outputs {names}: give {len(loaded.outputs)} --output, "
            f"not {len(output)}"
        )
    limits = None if lengths is None else read_array(lengths)
    with open_device(device, **read_options(option or [])) as opened:
        with console.status(f"Loading {program} on {device}"):
            session = opened.load(loaded)
        results, counters = [], dict.fromkeys(session.counters, 0)
        for sample, limit in samples(loaded, arrays, limits):
            result = session.run(*sample, lengths=limit)
            results.append(result if isinstance(result, tuple) else (result,))
            counters = {name: counters[name] + value for name, value in session.counters.items()}
    write(loaded, results, output or [])
    print_counters(counters)


def samples(
    program: Program, arrays: list[np.ndarray], lengths: np.ndarray | None
) -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
    """The batch one sample at a time, under a progress bar; inputs that do not fit their ports go
    to the session as they are, which names what is wrong with them."""
    fit = len(arrays) <= len(program.inputs) and all(
        port.batch_axis is None or array.ndim == len(port.shape)
        for port, array in zip(program.inputs, arrays, strict=False)
    )
    sizes = {
        array.shape[port.batch_axis]
        for port, array in zip(program.inputs, arrays, strict=False)
        if fit and port.batch_axis is not None
    }
    if not fit or len(sizes) != 1 or (lengths is not None and lengths.shape != (*sizes,)):
        yield arrays, lengths
        return
    for index in track(range(sizes.pop()), description="Running", console=console, transient=True):
        sample = [
            array if port.batch_axis is None else np.take(array, [index], port.batch_axis)
            for port, array in zip(program.inputs, arrays, strict=False)
        ]
        yield sample, None if lengths is None else lengths[index : index + 1]


def write(program: Program, results: list[tuple[np.ndarray, ...]], paths: list[Path]) -> None:
    """Join the samples and save them; without paths, say what came out."""
    for index, port in enumerate(program.outputs):
        parts = [result[index] for result in results]
        joined = parts[0] if port.batch_axis is None else np.concatenate(parts, port.batch_axis)
        if not paths:
            console.print(f"{port.name}: float32 {list(joined.shape)}", highlight=False)
            continue
        try:
            np.save(paths[index], joined)
        except OSError as error:
            raise InputError(f"{paths[index]}: cannot be written ({error})") from error
        console.print(f"{paths[index]}: {port.name}, float32 {list(joined.shape)}", highlight=False)


def print_counters(counters: dict[str, int]) -> None:
    table = Table("event", "count", title="Counters")
    table.columns[1].justify = "right"
    for name, value in counters.items():
        missing = name in ("cycles", "product_cycles") and not value
        table.add_row(name.replace("_", " "), "hardware only" if missing else f"{value:,}")
    console.print(table)
