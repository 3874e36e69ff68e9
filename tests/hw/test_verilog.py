"""The generated Verilog is plain enough for every tool: Icarus and Verilator read it."""

import re
import shutil
import subprocess

import pytest

from espalier.spec.config import TINY
from espalier_hw.interfaces import Axi4, Axi4Lite
from espalier_hw.verilog import generate


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("verilog") / "top.v"
    path.write_text(generate(TINY))
    return path


def test_ports_are_flat_and_complete(source):
    header = re.search(r"^module top\((.*?)\);", source.read_text(), re.MULTILINE | re.DOTALL)
    ports = {name.strip() for name in header[1].split(",")}
    bus = {f"axi__{name}" for name in Axi4().members}
    host = {f"csr__{name}" for name in Axi4Lite().members}
    assert ports == bus | host | {"clk", "rst", "interrupt"}


def test_no_attributes_and_equal_modules_once(source):
    text = source.read_text()
    assert "(*" not in re.sub(r"@\s*\(?\*\)?", "", text)
    arrays = re.findall(r"^module (\S*array_\d+) ?\(", text, re.MULTILINE)
    assert len(arrays) <= 1, f"{TINY.arrays} arrays are one module, not {arrays}"


def test_icarus_reads_it(source):
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")
    command = ["iverilog", "-g2005-sv", "-t", "null", "-Wall", "-s", "top", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_verilator_reads_it(source):
    toolchain = pytest.importorskip("espalier_sim.verilator.toolchain")
    found = toolchain.find()
    command = [
        str(found.verilator),
        "--lint-only",
        "-Wno-fatal",
        "--top-module",
        "top",
        str(source),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"VERILATOR_ROOT": str(found.root)}
    )
    assert done.returncode == 0 and "%Error" not in done.stderr, done.stderr[-2000:]
