"""Verilog of the hardware, generated when its sources change and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from amaranth.hdl import Elaboratable

from espalier.errors import DeviceError
from espalier.spec.config import Config
from espalier_hw.accelerator import Accelerator
from espalier_hw.synthesis.yosys import SynthesisError
from espalier_hw.verilog import of

from . import cache as caches

FILE = "top.v"


def verilog(
    name: str,
    config: Config,
    component: Callable[[Config], Elaboratable],
    write: Callable[[Elaboratable], str] = of,
) -> Path:
    """The Verilog file of `component(config)`, top module `top`, as `write` makes it; `name` tells
    components apart.

    Raises DeviceError when Yosys is missing or fails.
    """
    key = caches.key(name, repr(config), _sources(), metadata.version("amaranth"))

    def make(folder: Path) -> None:
        try:
            text = write(component(config))
        except SynthesisError as error:
            raise DeviceError(f"the hardware could not be made into Verilog: {error}") from error
        (folder / FILE).write_text(text)

    target = caches.folder() / f"verilog-{key}"
    return caches.made(target, make, f"the Verilog of {name} {config.name}") / FILE


def accelerator(config: Config) -> Path:
    """The Verilog file of the whole accelerator."""
    return verilog("accelerator", config, Accelerator)


@cache
def _sources() -> str:
    """Hash of all that the Verilog is made from: the hardware's and the contract's files."""
    parts: list[bytes] = []
    for package in ("espalier_hw", "espalier.spec"):
        root = Path(str(resources.files(package)))
        for file in sorted(root.rglob("*.py")):
            parts += [str(file.relative_to(root)).encode(), file.read_bytes()]
    return caches.key(*parts)
