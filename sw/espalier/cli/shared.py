"""What commands share: consoles, options, reading of arguments."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ..errors import EspalierError, InputError
from ..program import Program
from ..spec.config import PRESETS, Config, preset

console = Console(width=None if sys.stdout.isatty() else 120)
errors = Console(stderr=True)


@dataclass
class Options:
    debug: bool = False


options = Options()


class UsageError(EspalierError):
    """An argument of the command line makes no sense."""


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file; pickles are refused. Raises InputError."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as a .npy file ({error}); write it with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: holds several arrays; give one .npy file for each input")
    return array


def read_config(name: str) -> Config:
    """A preset by name, in any case. Raises UsageError naming the choices."""
    if name.upper() not in PRESETS:
        raise UsageError(f"unknown config {name!r}; choose one of: {', '.join(PRESETS)}")
    return preset(name.upper())


def read_options(pairs: list[str]) -> dict[str, int | float | str]:
    """Device options `name=value`, numbers where they look like numbers. Raises UsageError."""
    result: dict[str, int | float | str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"an option must be name=value, not {pair!r}")
        result[name] = _number(value)
    return result


def _number(text: str) -> int | float | str:
    for kind in (lambda text: int(text, 0), float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def load(path: Path) -> Program:
    return Program.load(path)


def size(count: float) -> str:
    """Bytes for people: `12.3 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:.1f} GiB"
