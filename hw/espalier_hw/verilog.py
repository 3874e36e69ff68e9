"""Verilog of the accelerator: `python -m espalier_hw.verilog --config TINY -o accelerator.v`."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from amaranth.hdl import Elaboratable

from espalier.spec.config import PRESETS, Config, preset

from . import rtlil
from .accelerator import Accelerator
from .chip import ECP5
from .synthesis.ecp5 import OPEN_READS
from .synthesis.yosys import yosys

SCRIPT = """read_rtlil design.il
proc
pmuxtree
memory_collect
write_verilog -norename -noattr design.v
"""
"""Processes become multiplexers, so that combinational logic is continuous assignments. As
`always @*` blocks it stays x in Icarus where it depends on initial values alone, and blocks that
read each other's fields wake each other for ever by the glitches of their defaults."""
UNKNOWN = re.compile(r"(\d+)'hx+")
FIT_SCRIPT = """read_rtlil design.il
delete t:$meminit_v2
proc -norom
pmuxtree
memory_collect
opt_clean -purge
write_verilog -norename -noattr design.v
"""
"""For fitters: no memory has a value, tables are logic, and wires that nothing uses, some of them
without width, are gone."""


def generate(config: Config, name: str = "top") -> str:
    """Verilog of `Accelerator(config)` as module `name`, with the ports `clk`, `rst`, `interrupt`,
    `axi__*` and `csr__*`. Raises SynthesisError when Yosys is missing or fails.
    """
    return of(Accelerator(config), name)


def of(component: Elaboratable, name: str = "top") -> str:
    """Verilog of `component` as module `name`. Raises SynthesisError like `generate`."""
    return from_rtlil(rtlil.convert(component, name))


def from_rtlil(text: str, script: str = SCRIPT) -> str:
    """Plain Verilog of RTLIL: no attributes, one assignment or process a signal."""
    with tempfile.TemporaryDirectory() as folder:
        design = Path(folder, "design.il")
        design.write_text(text)
        yosys(script, design.parent)
        return design.with_suffix(".v").read_text()


def for_ecp5(component: Elaboratable) -> str:
    """Verilog of `component` as it is made for an ECP5, where a word that is read from block RAM
    while it is written is rubbish. Raises SynthesisError when Yosys is missing or fails."""
    text = rtlil.convert(component, platform=ECP5)
    verilog = from_rtlil(text, SCRIPT.replace("proc\n", f"proc\n{OPEN_READS}", 1))
    return UNKNOWN.sub(lambda match: f"{{{match[1]}{{1'h1}}}}", verilog)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the accelerator as Verilog.")
    parser.add_argument("--config", default="TINY", choices=PRESETS, help="sizes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    arguments.output.write_text(generate(preset(arguments.config)))


if __name__ == "__main__":
    main()
