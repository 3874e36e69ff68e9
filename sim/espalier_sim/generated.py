"""Verilog of the hardware, generated when its sources change and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from amaranth._toolchain.yosys import find_yosys
from amaranth.hdl import Elaboratable

from espalier.spec.config import Config
from espalier_hw.rtlil import convert

from . import cache as caches

FILE = "top.v"
SCRIPT = """read_rtlil <<rtlil
{rtlil}
rtlil
proc
pmuxtree
memory_collect
write_verilog -norename -noattr"""
"""Processes become multiplexers, so that combinational logic is continuous assignments. As `always @*` blocks
it stays x in Icarus where it depends on initial values alone, and blocks that read each other's fields wake
each other for ever by the glitches of their defaults."""


def verilog(name: str, config: Config, component: Callable[[Config], Elaboratable]) -> Path:
    """The Verilog file of `component(config)`, top module `top`; `name` tells components apart."""
    key = caches.key(name, repr(config), _sources(), SCRIPT, metadata.version("amaranth"))

    def make(folder: Path) -> None:
        yosys = find_yosys(lambda version: version >= (0, 40))
        script = SCRIPT.format(rtlil=convert(component(config)))
        (folder / FILE).write_text(yosys.run(["-q", "-"], script, ignore_warnings=True))

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
