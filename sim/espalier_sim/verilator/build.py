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
    objects = compile_model(tools, verilog, folder)
    harness = Path(str(resources.files(__package__))) / HARNESS[0]
    link(tools, objects, [harness], folder / LIBRARY, ("-shared", *CXX_FLAGS))
    shutil.rmtree(objects)


def compile_model(tools: Toolchain, verilog: str, folder: Path) -> Path:
    """Verilator and make in `folder`; the folder of headers and archives that `link` needs."""
    objects = folder / "objects"
    (folder / "top.v").write_text(verilog)
    flags = ["-CFLAGS", " ".join(CXX_FLAGS), "--Mdir", str(objects)]
    run([str(tools.verilator), *VERILATOR_FLAGS, *flags, "top.v"], folder)
    options = [f"{key}={value}" for key, value in OPTIMIZE.items()]
    targets = ["libVtop.a", "libverilated.a"]
    run(["make", "-s", "-f", "Vtop.mk", f"-j{os.cpu_count() or 1}", *options, *targets], objects)
    return objects


def link(
    tools: Toolchain, objects: Path, sources: list[Path], target: Path, flags: tuple[str, ...]
) -> None:
    """Compile `sources` and link them with the model in `objects`."""
    include = tools.root / "include"
    run(
        [
            "g++",
            "-std=gnu++20",
            "-O2",
            *flags,
            f"-I{objects}",
            f"-I{include}",
            f"-I{include}/vltstd",
            f"-I{resources.files(__package__)}",
            *map(str, sources),
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


def run(command: list[str], where: Path) -> None:
    """Run one step. Raises DeviceError with the end of what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    result = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()
        print(*lines, sep="\n", file=sys.stderr)
        raise DeviceError(
            f"building the simulation failed in {Path(command[0]).name}: {' / '.join(lines[-3:])}"
        )
