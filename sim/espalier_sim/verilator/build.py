"""Verilog to a shared library with the C functions of `harness.cpp`, built once and cached."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

from espalier.errors import DeviceError
from espalier.spec.config import Config

from .. import cache, generated
from .toolchain import Toolchain, find

TOP = "top"
HARNESS = ("harness.cpp", "memory.hpp")
VERILATOR_FLAGS = tuple(
    f"--cc --top-module {TOP} --prefix Vtop --no-timing -O3 --x-assign fast --x-initial fast "
    "--noassert -Wno-fatal -Wno-lint --output-split 20000".split()
)
"""-Wno-fatal: Amaranth's Verilog relies on implicit widths, which Verilator warns of."""
CXX_FLAGS = ("-fPIC", "-fvisibility=hidden", "-fno-gnu-unique")
"""The last two keep several libraries with equal class names apart in one process."""
OPTIMIZE = {"OPT_FAST": "-O2", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O2"}
LIBRARY = "accelerator.so"


def library(verilog: str, name: str) -> Path:
    """The shared library of `verilog`, whose top module is `top`; `name` is for messages.

    Raises DeviceError when a tool is missing or the Verilog cannot be built.
    """
    tools = find()
    sources = [resources.files(__package__).joinpath(file).read_text() for file in HARNESS]
    flags = repr((VERILATOR_FLAGS, CXX_FLAGS, OPTIMIZE))
    key = cache.key(verilog, *sources, flags, tools.name)
    target = cache.folder() / f"rtl-{key}"
    cache.made(target, lambda folder: _build(tools, verilog, folder), f"the simulation of {name}")
    return target / LIBRARY


def accelerator(config: Config) -> Path:
    """The shared library of the whole accelerator of `config`."""
    return library(generated.accelerator(config).read_text(), config.name)


def _build(tools: Toolchain, verilog: str, folder: Path) -> None:
    """Verilator, make and link in `folder`; generated C++ and objects are dropped."""
    objects = folder / "objects"
    (folder / "top.v").write_text(verilog)
    flags = ["-CFLAGS", " ".join(CXX_FLAGS), "--Mdir", str(objects)]
    _run([str(tools.verilator), *VERILATOR_FLAGS, *flags, "top.v"], folder)
    options = [f"{key}={value}" for key, value in OPTIMIZE.items()]
    targets = ["libVtop.a", "libverilated.a"]
    _run(["make", "-s", "-f", "Vtop.mk", f"-j{os.cpu_count() or 1}", *options, *targets], objects)
    _link(tools, objects, folder / LIBRARY)
    shutil.rmtree(objects)


def _link(tools: Toolchain, objects: Path, target: Path) -> None:
    include = tools.root / "include"
    here = Path(str(resources.files(__package__)))
    _run(
        [
            "g++",
            "-shared",
            "-std=gnu++20",
            "-O2",
            *CXX_FLAGS,
            f"-I{objects}",
            f"-I{include}",
            f"-I{include}/vltstd",
            f"-I{here}",
            str(here / HARNESS[0]),
            "-Wl,--whole-archive",
            "libVtop.a",
            "-Wl,--no-whole-archive",
            "libverilated.a",
            "-lpthread",
            "-latomic",
            "-o",
            str(target),
        ],
        objects,
    )


def _run(command: list[str], where: Path) -> None:
    """Run one step. Raises DeviceError with the end of what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    result = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()
        print(*lines, sep="\n", file=sys.stderr)
        raise DeviceError(
            f"building the simulation failed in {Path(command[0]).name}: {' / '.join(lines[-3:])}"
        )
