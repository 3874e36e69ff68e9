"""The DE1-SoC's Quartus project: what Quartus would refuse is not in it, and what happens with
Quartus (a stand-in), without it, and when timing fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.spec.config import TINY
from espalier_hw.boards import de1_soc_build, quartus

HERE = Path(__file__).parent
ATOMS = HERE / "cyclonev_atoms.v"
CHECKED = ("icarus", "verilator")
TOOL = """#!/bin/sh
# stand-in for a Quartus program: {name}
echo "Info: Running Quartus Prime {name} $*"
[ "$2" = espalier ] || exit 9
[ "$FAKE_FAILS" = {name} ] && {{ echo "Error (12345): as told"; exit 3; }}
{work}
exit 0
"""
WORK = {
    "quartus_map": "",
    "quartus_fit": f"cp {HERE}/quartus_reports/*.fit.* .",
    "quartus_asm": "touch espalier.sof espalier.rbf",
    "quartus_sta": f'sed "s/0.305/${{FAKE_SLACK:-0.305}}/" {HERE}/quartus_reports/espalier.sta.'
    f"summary > espalier.sta.summary; cp {HERE}/quartus_reports/espalier.sta.rpt .",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quartus")
    de1_soc_build.project(TINY, folder, 100, 125)
    return folder


@pytest.fixture
def built(project, tmp_path, monkeypatch):
    """Runs `main` on a copy of the project, with Quartus' programs or without."""

    def run(*, programs: bool, **environment: str) -> tuple[int, Path]:
        folder, bin_folder = tmp_path / "project", tmp_path / "bin"
        shutil.copytree(project, folder)
        bin_folder.mkdir()
        for name, work in WORK.items() if programs else ():
            program = bin_folder / name
            program.write_text(TOOL.format(name=name, work=work))
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
        monkeypatch.delenv(quartus.ENVIRONMENT, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(de1_soc_build, "project", lambda *_: sorted(folder.iterdir()))
        return de1_soc_build.main(["--config", "TINY", "--folder", str(folder)]), folder

    return run


def test_the_project_is_complete(project):
    names = {path.name for path in project.iterdir()}
    assert {f"espalier.{kind}" for kind in ("v", "qsf", "sdc")} | {"build_espalier.sh"} <= names
    settings = (project / "espalier.qsf").read_text()
    assert "DEVICE 5CSEMA5F31C6" in settings and "GENERATE_RBF_FILE ON" in settings
    assert re.search(r'-to "clk50_0__io" PIN_AF14', settings)
    assert len(re.findall(r"PIN_\w+", settings)) == 11
    constraints = (project / "espalier.sdc").read_text()
    assert '-period 20.0 [get_ports "clk50_0__io"]' in constraints
    assert "derive_pll_clocks" in constraints and "[all_clocks] 2.000" in constraints


def test_the_verilog_is_plain(project):
    """No attributes, no values in memories, no tables, nothing of no width."""
    text = (project / "espalier.v").read_text()
    assert "(*" not in re.sub(r"@\s*\(?\*\)?", "", text)
    assert not re.search(r"\binitial\b", text)
    assert "[-1:0]" not in text
    assert max(len(name) for name in re.findall(r"\\(\S+) ", text)) < 200


@pytest.mark.parametrize("parser", CHECKED)
def test_two_parsers_read_it(project, parser):
    source = project / "espalier.v"
    if parser == "icarus":
        if shutil.which("iverilog") is None:
            pytest.skip("iverilog is not installed")
        command, environment = ["iverilog", "-g2005", "-t", "null", "-s", "espalier"], None
    else:
        toolchain = pytest.importorskip("espalier_sim.verilator.toolchain").find()
        command = [str(toolchain.verilator), "--lint-only", "-Wno-fatal"]
        command += ["--top-module", "espalier"]
        environment = {**os.environ, "VERILATOR_ROOT": str(toolchain.root)}
    command += [str(ATOMS), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "rror" not in said, said[-2000:]
    worth = re.findall(r".*(?:UNDRIVEN|MULTIDRIVEN|LATCH|ASCRANGE|PINNOTFOUND|SELRANGE).*", said)
    assert not worth, worth[:5]


def test_clocks_outside_the_chip_are_refused(capsys, tmp_path):
    assert de1_soc_build.main(["--clock-mhz", "300", "--folder", str(tmp_path)]) == 1
    assert "error: clock_mhz must be 20 to 200, not 300" in capsys.readouterr().err


def test_without_quartus_it_says_what_to_do(built, capsys):
    status, folder = built(programs=False)
    said = capsys.readouterr().err
    assert status == 1 and "Quartus Prime Lite" in said and "make bitstream CONFIG=TINY" in said
    assert str(folder) in said and not (folder / "build.log").exists()


def test_with_quartus_it_reports_the_fit(built, capsys):
    status, folder = built(programs=True)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert (folder / "espalier.rbf").exists() and "| engine.array | 100 | 5 |" in said.out
    assert "103.14 MHz" in said.out and "Worst slack: +0.187 ns" in said.out
    assert (folder / "report.md").read_text().strip() in said.out


def test_a_script_can_bring_quartus(built, tmp_path):
    script = tmp_path / "qenv.sh"
    script.write_text(f"PATH={tmp_path}/elsewhere:$PATH\n")
    for name, work in WORK.items():
        program = tmp_path / "elsewhere" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(TOOL.format(name=name, work=work))
        program.chmod(0o755)
    status, _ = built(programs=False, **{quartus.ENVIRONMENT: str(script)})
    assert status == 0


def test_timing_that_fails_fails_the_build(built, capsys):
    status, _ = built(programs=True, FAKE_SLACK="-0.051")
    said = capsys.readouterr()
    assert status == 1 and "timing fails by 0.051 ns: Slow 1100mV 0C Model Setup" in said.err
    assert "Worst slack: -0.051 ns" in said.out


@pytest.mark.parametrize("tool", ["quartus_map", "quartus_fit", "quartus_asm"])
def test_a_tool_that_fails_fails_the_build(built, capsys, tool):
    status, folder = built(programs=True, FAKE_FAILS=tool)
    said = capsys.readouterr().err
    assert status == 1 and "Error (12345): as told" in said and str(folder / "build.log") in said


def test_boards_are_chosen_by_name():
    command = [sys.executable, "-m", "espalier_hw.boards", "--board", "abacus"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "de1_soc" in done.stderr and "Traceback" not in done.stderr
