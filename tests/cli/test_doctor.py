"""`espalier doctor`, on the reference machine and on a simulated board in every kind of trouble."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import board_host as host
import numpy as np
import pytest
from integer_graphs import gru_graph

from espalier.cli import probe
from espalier.compiler.backend import build
from espalier.runtime import open as open_device
from espalier.spec import isa
from espalier.spec.config import PRESETS, SMALL, TINY, Config
from espalier_sim.board.process import Board

ADDRESS_OF_MANAGER, ADDRESS_OF_RESETS, ADDRESS_OF_PORTS = 0xFF706000, 0xFFD0501C, 0xFFC25080


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_the_network_gives_what_is_shipped_on_every_configuration(config: Config):
    with open_device("reference") as device:
        found = device.load(probe.network(config)).run_integers(probe.network_input())
    assert found[0].tolist() == [list(row) for row in probe.EXPECTED]
    assert len(np.unique(found)) > 20


@pytest.mark.parametrize("name", PRESETS)
def test_a_machine_that_is_well(espalier, name):
    status, out, _ = espalier("doctor", "--device", "reference", "--config", name)
    assert status == 0 and "reference is ready" in out and "24 outputs are bit-exact" in out


def test_the_simulated_hardware(espalier):
    status, out, _ = espalier("doctor", "--device", "rtl", "--config", "TINY")
    assert status == 0 and "rtl is ready" in out and "waits by polling" in out


def test_a_machine_that_is_not_there(espalier, tmp_path):
    status, out, _ = espalier("doctor", "--option", f"root={tmp_path}")
    assert status == 1 and "FAIL board: not one with a device tree" in out
    assert "elsewhere use rtl" in out and "registers: not touched" in out


@pytest.fixture
def board() -> Iterator[Board]:
    with Board(TINY, seed=8, stall=0.2) as opened:
        yield opened


def run_doctor(board: Board, *arguments: object) -> tuple[int, str]:
    words = [sys.executable, "-m", "espalier.cli", "doctor", "--option", f"root={board.root}"]
    result = subprocess.run(
        [*words, *map(str, arguments)], env=board.environment, text=True, capture_output=True
    )
    assert "Traceback" not in result.stdout + result.stderr
    return result.returncode, result.stdout


@pytest.fixture
def doctor(board: Board) -> Callable[..., tuple[int, str]]:
    return partial(run_doctor, board)


def test_a_board_that_is_well(board, doctor, program_file):
    status, out = doctor("--program", program_file)
    assert status == 0 and out.count("ok  ") == 12 and "interrupt: arrives" in out
    assert "waits by interrupt" in out and not board.report().breach


def test_a_kernel_without_fpga_drivers_and_uio(board, doctor):
    for folder in ("fpga_manager", "fpga_bridge", "uio", "u-dma-buf"):
        shutil.rmtree(board.root / "sys/class" / folder)
    arguments = ("--option", "window_bytes=0x100000")
    status, out = doctor(*arguments)
    assert status == 0 and "bridge fpga2sdram: enabled" in out and "waits by polling" in out
    for address, word, message in (
        (ADDRESS_OF_PORTS, 0, "FAIL bridge fpga2sdram: disabled (0x0)"),
        (ADDRESS_OF_RESETS, 7, "FAIL bridge lwhps2fpga: disabled"),
        (ADDRESS_OF_MANAGER, 2, "FAIL FPGA: not configured (mode 2)"),
    ):
        board.poke({address: word})
        status, out = doctor(*arguments)
        assert status == 1 and message in out and "registers: not touched" in out


def test_bridges_and_bitstreams_that_are_not(board, doctor):
    state = board.root / "sys/class/fpga_bridge/br1/state"
    state.write_text("disabled\n")
    status, out = doctor()
    assert status == 1 and "FAIL bridge fpga2sdram: disabled" in out and "FPGAPORTRST" in out
    state.write_text("enabled\n")
    for register, value, message in (
        ("IDENTITY", 1, "FAIL configuration: identity 0x00000001, expected"),
        ("VERSION", 7, f"FAIL bitstream: version 7, not {isa.VERSION}"),
        ("MAGIC", 0xFFFFFFFF, "FAIL bitstream: MAGIC 0xffffffff, not 0x4c505345"),
    ):
        board.forge(register, value)
        status, out = doctor()
        assert status == 1 and message in out and "->" in out


def test_another_machine_than_the_programs(doctor, program_file, tmp_path):
    program = probe.network(SMALL).save(tmp_path / "small.espalier")
    status, out = doctor("--program", program)
    assert status == 1 and f"expected SMALL {SMALL.identity:#010x}" in out


def test_a_memory_that_does_not_answer(board, doctor):
    board.hang_memory()
    status, out = doctor()
    assert status == 1 and "ok   window" in out and "FAIL run: " in out


def test_a_cache_that_nobody_maintains(board, doctor):
    """The file of the sync commands leads nowhere: what the host writes never arrives."""
    for name in ("cpu", "device"):
        path = board.root / f"sys/class/u-dma-buf/espalier-buffer/sync_for_{name}"
        path.unlink()
        path.symlink_to("/dev/null")
    status, out = doctor()
    assert status == 1 and "ok   window" in out and "FAIL loop-back" in out


def test_a_machine_that_a_killed_process_left_running(tmp_path):
    program = build(gru_graph(np.random.default_rng(7), 5, 9, layers=2), TINY, {})
    with Board(TINY, window_bytes=1 << 23, stall=0.1) as board:
        host.kill_while_busy(board, program.save(tmp_path / "long.espalier"), 0)
        status, out = run_doctor(board)
        assert status == 0 and "STATUS 0x1, left so by an earlier process" in out


def test_an_interrupt_that_never_comes(board, doctor):
    board.mute_interrupt()
    status, out = doctor()
    assert status == 1 and "FAIL interrupt: did not arrive within 1 s" in out
    assert "24 outputs are bit-exact" in out and "--option interrupt=0" in out
    assert doctor("--option", "interrupt=0")[0] == 0


def test_a_window_too_small(doctor):
    status, out = doctor("--option", "window_bytes=4096")
    assert status == 1 and "FAIL device: the window has 4096 bytes" in out
