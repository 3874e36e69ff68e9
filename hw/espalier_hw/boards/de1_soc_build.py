"""The DE1-SoC's Quartus project, and its bitstream where Quartus is installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from amaranth_boards.de1_soc import DE1SoCPlatform

from espalier.spec.config import PRESETS, Config, preset

from ..synthesis.cyclonev import CHIP, table
from ..synthesis.quartus_reports import Fit, read
from ..synthesis.yosys import SynthesisError
from . import quartus
from .de1_soc_top import De1SocTop

NAME = "espalier"
CLOCK_MHZ, AIM_MHZ = 100, 125
CLOCKS_MHZ = (20, 200)
"""Range of core clocks that make sense on this chip."""
FOLDER = Path("build/quartus")
MISSING = """\
error: Quartus was not found, so there is no bitstream yet; the project is complete in {folder}.
Install Quartus Prime Lite 20.1 or later (Standard edition family, with Cyclone V device support;
free of charge) from https://www.intel.com/content/www/us/en/collections/products/fpga/software/downloads.html
then put its bin folder on PATH, or let {variable} name its script quartus/adm/qenv.sh, and run

    make bitstream{options}

or, on another machine with that folder copied to it: cd {folder} && sh build_{name}.sh"""


def project(config: Config, folder: Path, clock_mhz: float, aim_mhz: float) -> list[Path]:
    """Write the project. Raises ValueError for a clock that cannot be, SynthesisError."""
    low, high = CLOCKS_MHZ
    if not low <= clock_mhz <= high:
        raise ValueError(f"clock_mhz must be {low} to {high}, not {clock_mhz:g}")
    top = De1SocTop(config, clock_mhz=clock_mhz)
    return quartus.write(
        DE1SoCPlatform(), top, NAME, folder, clock_mhz=clock_mhz, aim_mhz=max(aim_mhz, clock_mhz)
    )


def report(config: Config, fit: Fit, clock_mhz: float) -> str:
    """What Quartus says, as Markdown: resources as `make synth` has them, clocks, worst slack."""
    clocks = [f"| {name} | {mhz:g} MHz |" for name, mhz in sorted(fit.clocks_mhz.items())]
    return "\n".join(
        [
            f"{config.name} ({config.total_lanes} lanes) on the DE1-SoC ({CHIP['alms']} ALMs) at "
            f"{clock_mhz:g} MHz; Quartus {fit.version}.",
            "",
            table(fit.usage),
            "",
            "| clock | fastest, slowest corner |",
            "|---|---:|",
            *clocks,
            "",
            f"Worst slack: {fit.worst.nanoseconds:+.3f} ns, {fit.worst.check}.",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """0 when the bitstream is there and meets timing, or (`--project`) the project is written."""
    options = _options(arguments)
    config, folder = preset(options.config), options.folder
    print(f"Writing the project of {config.name}; this takes a minute.", file=sys.stderr)
    try:
        files = project(config, folder, options.clock_mhz, options.aim_mhz)
        print(*files, sep="\n")
        if options.project:
            return 0
        if quartus.find() is None:
            print(_missing(options), file=sys.stderr)
            return 1
        print("Running Quartus; this takes about an hour.", file=sys.stderr)
        quartus.build(NAME, folder)
        fit = read(folder, NAME)
    except (SynthesisError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page = report(config, fit, options.clock_mhz)
    (folder / "report.md").write_text(page + "\n")
    print(f"{page}\n\n{folder / NAME}.sof\n{folder / NAME}.rbf")
    return _verdict(fit)


def _verdict(fit: Fit) -> int:
    failed = [slack for slack in fit.slacks if slack.nanoseconds < 0]
    for slack in failed:
        print(f"error: timing fails by {-slack.nanoseconds:.3f} ns: {slack.check}", file=sys.stderr)
    if failed:
        print("The bitstream is not to be used; a lower --clock-mhz may do.", file=sys.stderr)
    return bool(failed)


def _missing(options: argparse.Namespace) -> str:
    words = "" if options.config == "DE1_SOC" else f" CONFIG={options.config}"
    words += "" if options.clock_mhz == CLOCK_MHZ else f" CLOCK_MHZ={options.clock_mhz:g}"
    return MISSING.format(
        folder=options.folder, variable=quartus.ENVIRONMENT, options=words, name=NAME
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m espalier_hw.boards --board de1_soc", description=__doc__
    )
    parser.add_argument("--config", default="DE1_SOC", choices=PRESETS, help="sizes")
    parser.add_argument("--clock-mhz", type=float, default=CLOCK_MHZ, help="of the core")
    parser.add_argument("--aim-mhz", type=float, default=AIM_MHZ, help="what the fitter tries for")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything goes")
    parser.add_argument("--project", action="store_true", help="write the project, build nothing")
    return parser.parse_args(arguments)
