"""A Quartus project for a board: written anywhere, built where Quartus is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from amaranth.build import Platform
from amaranth.hdl import Elaboratable

from ..rtlil import share_modules
from ..synthesis.yosys import SynthesisError
from ..verilog import FIT_SCRIPT, from_rtlil

TOOLS = ("quartus_map", "quartus_fit", "quartus_asm", "quartus_sta")
ENVIRONMENT = "AMARANTH_ENV_QUARTUS"
"""Names a script that puts Quartus on PATH, which the build script reads first."""
LOG_LINES = 30
SETTINGS = """\
set_global_assignment -name NUM_PARALLEL_PROCESSORS ALL
set_global_assignment -name OPTIMIZATION_MODE "HIGH PERFORMANCE EFFORT"
set_global_assignment -name ON_CHIP_BITSTREAM_DECOMPRESSION ON
"""
"""The bitstream is compressed: smaller, and what MSEL = 01010 asks for."""
CONSTRAINTS = """\
derive_pll_clocks
derive_clock_uncertainty
if {{[string equal $::quartus(nameofexecutable) quartus_fit]}} {{
    # the fitter aims for {aim_mhz:g} MHz; the analysis afterwards judges by {clock_mhz:g} MHz
    set_clock_uncertainty -add -setup -from [all_clocks] -to [all_clocks] {margin_ns:.3f}
}}
set_false_path -to [get_ports {{led_*}}]
"""


def write(
    platform: Platform,
    top: Elaboratable,
    name: str,
    folder: Path,
    *,
    clock_mhz: float,
    aim_mhz: float,
) -> list[Path]:
    """The complete project `name` of `top` in `folder`: Verilog, settings, constraints, script.

    The fitter gets the difference between the periods of `clock_mhz` and `aim_mhz` as uncertainty.
    Memories have no initial values: the machine writes before it reads, and a value would keep the
    small ones out of MLABs. Raises SynthesisError when Yosys is missing or fails.
    """
    # the platform would write Verilog with attributes, and one module an instance
    platform.quartus_file_templates = {
        kind: text
        for kind, text in platform.quartus_file_templates.items()
        if "debug" not in kind and not kind.endswith((".bat", ".json"))
    } | {"{{name}}.v": "{{emit_rtlil()}}"}
    margin = max(1000 / clock_mhz - 1000 / aim_mhz, 0)
    constraints = CONSTRAINTS.format(clock_mhz=clock_mhz, aim_mhz=aim_mhz, margin_ns=margin)
    plan = platform.prepare(
        top, name, emit_src=False, add_settings=SETTINGS, add_constraints=constraints
    )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, content in plan.files.items():
        text = content if isinstance(content, str) else content.decode()
        if file == f"{name}.v":
            text = from_rtlil(share_modules(text), FIT_SCRIPT)
        (folder / file).write_text(text)
        written.append(folder / file)
    return written


def find() -> str | None:
    """How Quartus can be had here: a name of what was found, or None."""
    if script := os.environ.get(ENVIRONMENT):
        return script
    return shutil.which(os.environ.get("QUARTUS_MAP", TOOLS[0]))


def build(name: str, folder: Path) -> None:
    """Run the project's build script, its output to `build.log` and the terminal.

    Raises SynthesisError with the errors and the end of the log when a tool fails or files are
    missing.
    """
    log = folder / "build.log"
    with log.open("w") as file:
        done = subprocess.run(
            ["sh", f"build_{name}.sh"], cwd=folder, stdout=file, stderr=subprocess.STDOUT
        )
    text = log.read_text(errors="replace")
    if done.returncode:
        lines = [line for line in text.splitlines() if line.startswith("Error")]
        lines = lines or text.splitlines()[-LOG_LINES:]
        raise SynthesisError("\n".join([f"Quartus failed, see {log}:", *lines[:LOG_LINES]]))
    for suffix in ("sof", "rbf"):
        if not (folder / f"{name}.{suffix}").exists():
            raise SynthesisError(f"Quartus ended without {name}.{suffix}, see {log}")
