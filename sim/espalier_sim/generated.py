"""Verilog of the hardware, generated when its sources change and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from amaranth.hdl import Elaboratable

from espalier.spec.config import Config
from espalier_hw.verilog import convert

from . import cache as caches

FILE = "top.v"


def verilog(name: str, config: Config, component: Callable[[Config], Elaboratable]) -> Path:
    """The Verilog file of `component(config)`, top module `top`; `name` tells components apart."""
    key = caches.key(name, repr(config), _sources(), metadata.version("amaranth"))

    def make(folder: Path) -> None:
        text = convert(component(config))
        # `always @*` waits for a first change: in Icarus, what depends on initial values alone stays x.
        (folder / FILE).write_text(text.replace("always @*", "always_comb"))

    return caches.made(caches.folder() / f"verilog-{key}", make) / FILE


def accelerator(config: Config) -> Path:
    """The Verilog file of the whole accelerator."""
    from espalier_hw.accelerator import Accelerator

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
