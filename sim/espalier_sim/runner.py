"""Build and run one cocotb bench: Verilog once per unit, one build per simulator.

`WAVES=1` in the environment writes waveforms into the run's folder below `build/sim`: `top.fst`
(Icarus) or `dump.vcd` (Verilator).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from amaranth.hdl import Elaboratable
from cocotb_tools import runner as cocotb_runner
from cocotb_tools.check_results import get_results

from espalier.errors import DeviceError
from espalier.spec.config import Config

from . import cache as caches
from . import generated
from .verilator import toolchain

SIMULATORS = ("icarus", "verilator")
BUILD = Path("build") / "sim"
TIMESCALE = ("1ns", "1ps")
VERILATOR_ARGUMENTS = ("-Wno-fatal", "-Wno-lint", "--x-assign", "fast", "--x-initial", "fast")
OPTIMIZE = ("OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0")
"""Benches run for thousands of cycles: compiling would take longer than it saves."""


class BenchFailed(AssertionError):
    """A test of the bench failed; the message carries the end of the simulator's log."""


class _Verilator(cocotb_runner.Verilator):
    """cocotb's Verilator runner with our toolchain, and only the ports of the top visible.

    With every signal public, as the original has it, Verilator optimises nothing and runs three
    times slower.
    """

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(toolchain.find().verilator)

    def _build_command(self):  # type: ignore[no-untyped-def]
        commands = super()._build_command()
        where = commands[0].index("--public-flat-rw")
        commands[0][where : where + 1] = ["--public-depth", "1"]
        commands[1] += OPTIMIZE
        return commands


def run(
    bench: str,
    config: Config,
    component: Callable[[Config], Elaboratable],
    simulator: str,
    *,
    unit: str = "",
    seed: int = 0,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the tests of the module `bench` on the Verilog of `component(config)`.

    Parameters
    ----------
    bench: the cocotb module's full name.
    unit: names the component, whose build all its benches share; else the module's last part.
    simulator: one of SIMULATORS.
    seed: cocotb's random seed, from which the bench draws stimuli and pauses.
    environment: further variables for the bench; ESPALIER_CONFIG is the Config's name.

    Raises
    ------
    BenchFailed: a test of the bench failed.
    DeviceError: the simulator is not installed; the message names the command that installs it.
    """
    module = bench.rpartition(".")[2]
    unit = unit or module
    waves = os.environ.get("WAVES", "") not in ("", "0")
    source = generated.verilog(unit, config, component)
    key = caches.key(source.read_bytes(), str(waves), repr(VERILATOR_ARGUMENTS))
    target = (BUILD / f"{unit}-{config.name}-{simulator}-{key}").resolve()
    chosen = _runner(simulator)
    what = f"the bench of {unit} for {simulator}"
    caches.made(target, lambda folder: _build(chosen, source, folder, waves), what)
    run_folder = target / (f"seed{seed}" if unit == module else f"{module}-seed{seed}")
    run_folder.mkdir(exist_ok=True)
    log = run_folder / "log.txt"
    results = run_folder / "results.xml"
    failure = ""
    try:
        chosen.test(
            bench,
            hdl_toplevel="top",
            hdl_toplevel_lang="verilog",
            build_dir=target,
            test_dir=run_folder,
            results_xml=str(results),
            seed=seed,
            waves=waves,
            plusargs=[f"+dumpfile_path={run_folder / 'top.fst'}"] if waves else [],
            extra_env={"ESPALIER_CONFIG": config.name, **(environment or {})},
            log_file=log,
        )
    except SystemExit as stop:
        failure = f"the simulator ended with {stop.code}"
    _check(results, f"{module} on {simulator}, seed {seed}", log, failure)


def _check(results: Path, what: str, log: Path, failure: str) -> None:
    """Raise BenchFailed unless tests ran and none failed."""
    tests, failed = get_results(results) if results.exists() else (0, 0)
    if failure or failed or not tests:
        reason = f"{failed} of {tests} tests failed" if tests else failure or "no tests were found"
        tail = log.read_text(errors="replace")[-6000:]
        raise BenchFailed(f"{what}: {reason}; end of {log}:\n{tail}")


def _runner(simulator: str) -> cocotb_runner.Runner:
    if simulator == "icarus" and shutil.which("iverilog") is None:
        raise DeviceError("iverilog was not found; install with: sudo apt-get install iverilog")
    chosen = {"icarus": cocotb_runner.Icarus, "verilator": _Verilator}[simulator]()
    chosen.log.setLevel(logging.WARNING)
    return chosen


def _build(chosen: cocotb_runner.Runner, source: Path, target: Path, waves: bool) -> None:
    """Fill the empty folder `target` with the simulation of the Verilog file `source`."""
    log = target / "build.log"
    try:
        chosen.build(
            sources=[source],
            hdl_toplevel="top",
            build_dir=target,
            build_args=VERILATOR_ARGUMENTS if isinstance(chosen, _Verilator) else [],
            always=True,
            waves=waves,
            timescale=TIMESCALE,
            log_file=log,
        )
    except (SystemExit, RuntimeError) as failure:
        tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
        raise BenchFailed(f"building {source} failed:\n{tail}") from failure
