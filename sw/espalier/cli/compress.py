"""`espalier compress my_model.py:build --data train.npz`: prune, round and train from the command
line, in one process or, under torchrun, in several."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .build import call, find
from .job import Job, Training
from .progress import quiet
from .shared import UsageError, console, read_config

if TYPE_CHECKING:
    import torch

Files = Annotated[
    list[Path] | None,
    typer.Option("--data", help=".npz, .npy or .safetensors of inputs and labels; repeatable."),
]
LossName = Annotated[
    str,
    typer.Option("--loss", help="cross-entropy, mse, or FILE:FUNCTION of (model, batch)."),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="JSON with values of espalier.Recipe.")
]
Density = Annotated[
    str | None, typer.Option("--density", help="Share of weights kept, like 0.1 or 1/12.")
]
Bits = Annotated[int | None, typer.Option("--bits", help="Of weights: 4 or 8.")]
Name = Annotated[str | None, typer.Option(help="See docs/compression.md; --recipe's otherwise.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Folder: a run that was killed goes on from there."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Default: the source's name with .safetensors."),
]
Tests = Annotated[
    list[Path] | None,
    typer.Option("--test", help="Arrays on which to measure the model before and after."),
]


def compress_command(
    source: Annotated[
        str,
        typer.Argument(help="FILE:FUNCTION, which returns (model, args) or (model, args, options)"),
    ],
    data: Files = None,
    labels: Annotated[str | None, typer.Option(help="The array with labels.")] = None,
    test: Tests = None,
    loss: LossName = "cross-entropy",
    recipe: RecipeFile = None,
    density: Density = None,
    bits: Bits = None,
    pattern: Name = None,
    score: Name = None,
    allocation: Name = None,
    method: Name = None,
    arithmetic: Name = None,
    distillation: Annotated[
        float | None, typer.Option(help="Share of the loss that follows the dense model, 0 to 1.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="TINY, SMALL, DE1_SOC or ULX3S.")] = None,
    epochs: Annotated[int, typer.Option(help="Of training; 0 compresses at once.")] = 10,
    batch: Annotated[int, typer.Option(help="Samples of a batch, over all processes.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Adam's at the start.")] = 1e-2,
    seed: Annotated[int, typer.Option(help="Of order, dropout and the function's weights.")] = 0,
    calibration: Annotated[int, typer.Option(help="Samples for ranges and one-shot.")] = 256,
    checkpoint: Checkpoint = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    output: Output = None,
) -> None:
    """Compress a model on data, and keep the result for `espalier compile --weights`."""
    wishes = {
        "density": _fraction(density), "weight_bits": bits, "pattern": pattern, "score": score,
        "allocation": allocation, "method": method, "arithmetic": arithmetic,
        "distillation": distillation, "config": config and read_config(config),
    }  # fmt: skip
    training = Training(
        epochs=epochs, batch=batch, learning_rate=learning_rate, seed=seed, loss=loss
    )
    if not data:
        raise UsageError("--data must name the arrays to compress with; training inputs and labels")
    with processes() as device:
        job = prepare(source, data, labels, test or [], training, read_recipe(recipe, wishes))
        job.move(device)
        small = job.run(calibration, checkpoint, checkpoint_every)
        job.finish(small, output or Path(source.rpartition(":")[0]).with_suffix(".safetensors"))


def _fraction(text: str | None) -> float | None:
    """0.25 or 1/4."""
    if text is None:
        return None
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--density must be like 0.1 or 1/12, not {text!r}") from None


def read_recipe(path: Path | None, wishes: dict[str, Any]) -> dict[str, Any]:
    """Values for a Recipe: the file's, and over them what the command line says."""
    from ..compression import Recipe

    values: dict[str, Any] = {}
    if path is not None:
        try:
            text = path.read_text()
            full, values = Recipe.from_json(text), json.loads(text)
        except OSError as error:
            raise UsageError(f"--recipe {path}: cannot be read ({error})") from error
        values = {f.name: getattr(full, f.name) for f in fields(Recipe) if f.name in values}
    return values | {name: value for name, value in wishes.items() if value is not None}


@contextmanager
def processes() -> Iterator[torch.device]:
    """This process' device; under torchrun, with the others at hand within the block."""
    import torch
    from torch import distributed

    local, size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if size == 1:
        yield device
        return
    distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        with quiet(distributed.get_rank() > 0):
            yield device
    finally:
        distributed.destroy_process_group()


def prepare(
    source: str,
    data: list[Path],
    labels: str | None,
    test: list[Path],
    training: Training,
    values: dict[str, Any],
) -> Job:
    """Read everything; nothing is computed yet."""
    import torch

    from ..compression import Recipe
    from .samples import read_samples

    torch.manual_seed(training.seed)
    with console.status("Importing the model"):
        model, _, options = call(find(source)[1], source)
    if "config" in options:
        values = {"config": options["config"], **values}
    recipe = Recipe(**values)
    samples = read_samples(data, model, labels)
    tests = read_samples(test, model, labels) if test else None
    return Job(model.eval(), recipe, samples, tests, training)
