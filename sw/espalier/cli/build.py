"""`espalier compile my_model.py:build`: import the user's code as it asks to be, compile what it
returns."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import EspalierError
from .shared import UsageError, console, read_config, size

Built = tuple[Any, Any, dict[str, Any]]


def compile_command(
    source: Annotated[
        str,
        typer.Argument(
            help="FILE:FUNCTION; the function returns (model, args) or (model, args, options), "
            "options being keyword arguments of espalier.compile."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Program file; default: the source's name with .espalier."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="TINY, SMALL, DE1_SOC or ULX3S; default: what FUNCTION says, or DE1_SOC."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            help="What `espalier compress` made of this model: a .safetensors file.",
        ),
    ] = None,
) -> None:
    """Compile a model into a program file."""
    path, function = find(source)
    with console.status("Importing the model"):
        model, args, arguments = call(function, source)
    if weights is not None:
        from ..compression import load_compressed

        model = load_compressed(model, weights)
    if config is not None:
        arguments["config"] = read_config(config)
    with console.status("Compiling"):
        from .. import compile

        program = compile(model, args, **arguments)
    target = program.save(output or path.with_suffix(".espalier"))
    console.print(
        f"{target}: {program.instructions} instructions, {size(len(program.image))} for "
        f"{program.config.name}; "
        f"espalier inspect {target} says more",
        highlight=False,
        soft_wrap=True,
    )


def find(source: str) -> tuple[Path, Callable[..., Any]]:
    """The file and function of `FILE:FUNCTION`. Raises UsageError, or what importing the file led
    to."""
    name, colon, function = source.rpartition(":")
    path = Path(name)
    if not colon or not function.isidentifier():
        raise UsageError(
            f"the model must be given as FILE:FUNCTION, not {source!r}; say my_model.py:build"
        )
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[spec.name] = module
    guard(partial(spec.loader.exec_module, module), source)
    found = getattr(module, function, None)
    if not callable(found):
        names = [
            n
            for n, v in vars(module).items()
            if callable(v) and getattr(v, "__module__", "") == path.stem
        ]
        raise UsageError(
            f"{path}: has no function {function!r}; it has: {', '.join(names) or 'none'}"
        )
    return path, found


def call(function: Callable[[], Any], source: str) -> Built:
    """(model, args, options) of the user's function. Raises UsageError when it returns anything
    else."""
    built = guard(function, source)
    if not isinstance(built, tuple) or len(built) not in (2, 3):
        raise UsageError(
            f"{source} must return (model, args) or (model, args, options), "
            f"not {type(built).__name__}"
        )
    arguments = built[2] if len(built) == 3 else {}
    if not isinstance(arguments, dict):
        raise UsageError(f"{source}: options must be a dict, not {type(arguments).__name__}")
    return built[0], built[1], dict(arguments)


def guard(work: Callable[[], Any], source: str) -> Any:
    """Run the user's code; whatever it raises becomes one message with the line that raised it."""
    try:
        return work()
    except EspalierError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
        raise UsageError(f"{source} raised {type(error).__name__}: {error} ({place})") from error
