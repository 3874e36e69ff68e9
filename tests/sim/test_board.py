"""The shipped driver on the simulated board: every host is a process, every register access a bus
transaction."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import board_host as host
import numpy as np
import pytest
from integer_graphs import gru_graph
from paired import on_reference
from random_models import draw_case

from espalier.compiler.backend import build
from espalier.program import Program
from espalier.spec.config import TINY
from espalier_sim.board.process import Board

RUN = """
program, x, y = sys.argv[2:5]
options = eval(sys.argv[5])
with opened(**options) as device:
    np.save(y, device.load(program).run_integers(np.load(x)))
"""


@pytest.fixture
def board() -> Iterator[Board]:
    with Board(TINY, seed=5, stall=0.2) as opened:
        yield opened


@pytest.fixture
def network(tmp_path: Path) -> tuple[Program, Path, Path]:
    """A recurrent network, its file, and the file of an input of 40 steps."""
    random = np.random.default_rng(7)
    program = build(gru_graph(random, 5, 9, layers=2, delta=True), TINY, {})
    np.save(tmp_path / "x.npy", random.integers(-127, 128, (1, 40, 5)))
    return program, program.save(tmp_path / "network.espalier"), tmp_path / "x.npy"


def expected(program: Program, x: Path) -> np.ndarray:
    return on_reference(program)[0].run_integers(np.load(x))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"buffer": "espalier-buffer", "window_bytes": 1 << 19},
        {"buffer": "uio"},
        {"buffer": "uio", "interrupt": False},
        {"uio": "none", "window_bytes": 1 << 20},
        {"uio": "none", "buffer": "0x3C000000:0x80000"},
    ],
    ids=repr,
)
def test_network_is_bit_exact_wherever_registers_and_window_are(board, network, tmp_path, options):
    program, path, x = network
    host.run(board, RUN, path, x, tmp_path / "y.npy", options)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected(program, x))


@pytest.mark.parametrize("side", ["before_read", "after_write"])
def test_a_forgotten_cache_is_seen(board, network, tmp_path, side):
    """The board's memory is not the host's cache: without maintenance nothing is right."""
    program, path, x = network
    blind = f"""
from espalier.runtime.udmabuf import CachedBuffer
CachedBuffer.{side} = lambda *_: None
"""
    end = host.ended(host.start(board, blind + RUN, path, x, tmp_path / "y.npy", {}))
    if end.status == 0:
        assert (np.load(tmp_path / "y.npy") != expected(program, x)).any()
    else:
        assert "FaultError" in end.err


def test_registers_take_whole_words_only(board):
    narrow = """
transport = open_de1_soc(root=root)(TINY)
transport._registers._bytes[0x28] = 1
"""
    end = host.ended(host.start(board, narrow))
    assert end.status == -signal.SIGBUS and "SLVERR" in end.err


def test_waiting_is_by_interrupt_and_survives_a_lost_one(board, network, tmp_path):
    _, path, x = network
    code = """
with opened() as device:
    session = device.load(sys.argv[2])
    x = np.repeat(np.load(sys.argv[3]), 100, axis=1)
    interrupt = device._transport.interrupt
    before = interrupt.count
    session.run_integers(x)
    print(interrupt.count - before, flush=True)
    sys.stdin.readline()
    session.run_integers(x)
    print(interrupt.count - before)
"""
    process = host.start(board, code, path, x)
    assert process.stdout.readline() == "1\n"
    board.mute_interrupt()
    assert process.communicate("go\n", timeout=60) == ("1\n", "")


def test_random_models_equal_the_reference(tmp_path):
    """Drawn models, inputs and cuts, whole and in chunks, on a board that stalls."""
    cases, scripts = [], []
    for seed in range(10):
        _, case = draw_case(np.random.default_rng([seed, 11]), TINY, work=150)
        case.program.save(tmp_path / f"{seed}.espalier")
        np.save(tmp_path / f"x{seed}.npy", case.x)
        whole, parts = case.script(on_reference(case.program)[0])
        cases.append([*whole, *parts])
        scripts.append(case.chunks)
    code = """
sys.path.insert(0, sys.argv[4])
from random_models import Case
from espalier.program import Program
folder, chunks = sys.argv[2], eval(sys.argv[3])
with opened() as device:
    for seed, cut in enumerate(chunks):
        program = Program.load(f"{folder}/{seed}.espalier")
        case = Case(program, np.load(f"{folder}/x{seed}.npy"), cut)
        whole, parts = case.script(device.load(program))
        np.savez(f"{folder}/y{seed}.npz", *whole, *parts)
"""
    with Board(TINY, window_bytes=1 << 22, seed=9, stall=0.3, latency=40) as stalling:
        paths = ":".join(str(Path(__file__).parents[1] / name) for name in ("sim", "compiler"))
        code = code.replace("sys.path.insert(0, sys.argv[4])", "sys.path += sys.argv[4].split(':')")
        host.run(stalling, code, tmp_path, scripts, paths)
    for seed, results in enumerate(cases):
        with np.load(tmp_path / f"y{seed}.npz") as found:
            for name, result in zip(found, results, strict=True):
                np.testing.assert_array_equal(found[name], result, f"model {seed}")


THOUSAND = """
x, y = np.load(sys.argv[3]), np.load(sys.argv[4])
with opened() as device:
    session = device.load(sys.argv[2])
    for number in range(1000):
        sample = number % len(x)
        found = session.run_integers(x[sample : sample + 1])
        assert np.array_equal(found, y[sample : sample + 1]), number
print("done")
"""


@pytest.mark.slow
def test_a_thousand_inferences_in_a_row(tmp_path):
    random = np.random.default_rng(2)
    program = build(gru_graph(random, 4, 8, delta=True), TINY, {})
    path = program.save(tmp_path / "network.espalier")
    x = random.integers(-127, 128, (20, 2, 4))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", on_reference(program)[0].run_integers(x))
    with Board(TINY, seed=1, stall=0.25) as stalling:
        out = host.run(stalling, THOUSAND, path, tmp_path / "x.npy", tmp_path / "y.npy")
        assert out == "done\n" and stalling.report().bursts > 3000


LOOK = """
from espalier.spec.registers import Status
transport = open_de1_soc(root=root)(TINY)
print(Status(transport.read_register("STATUS")).name)
transport.close()
"""


@pytest.mark.parametrize("delay_s", [0, 0.3])
def test_a_killed_host_leaves_nothing_to_reset(network, tmp_path, delay_s):
    program, path, x = network
    with Board(TINY, window_bytes=1 << 23, seed=3, stall=0.1) as board:
        host.kill_while_busy(board, path, delay_s)
        assert host.run(board, LOOK) == "BUSY\n"
        host.run(board, RUN, path, x, tmp_path / "y.npy", {})
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected(program, x))


def test_a_closed_device_leaves_nothing_and_opens_again(board, network):
    code = """
import os
def files():
    return len(os.listdir("/proc/self/fd"))
with opened() as device:
    device.load(sys.argv[2])
before = files()
for options in ({}, {"buffer": "uio"}, {"uio": "none", "window_bytes": 1 << 20}):
    with opened(**options) as device:
        device.load(sys.argv[2])
        try:
            opened(**options).load(sys.argv[2])
        except espalier.errors.DeviceError as error:
            assert f"in use by process {os.getpid()}" in str(error)
        else:
            raise AssertionError("opened twice")
assert files() == before, (before, files())
"""
    host.run(board, code, network[1])


def test_the_command_runs_a_host_program_beside_a_board():
    words = [sys.executable, "-m", "espalier_sim.board", "--config", "TINY", "--stall", "0.3"]
    result = subprocess.run(
        [*words, "test", "-e", "{root}/dev/uio0"], capture_output=True, text=True
    )
    assert result.returncode == 0 and result.stdout.endswith("0 bursts; no breach\n")
    assert subprocess.run([*words, "false"], capture_output=True).returncode == 1


def test_second_process_is_told_who_has_it(board, network):
    holder = host.start(board, "transport = open_de1_soc(root=root)(TINY)\nprint('up', flush=True)"
                               "\nsys.stdin.read()\n")  # fmt: skip
    assert holder.stdout.readline() == "up\n"
    message = host.error_of(board, "opened().load(sys.argv[2])", network[1])
    assert f"the accelerator is in use by process {holder.pid}" in message
    holder.kill()
    holder.communicate()
    host.run(board, "opened().load(sys.argv[2])", network[1])


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [
        ("MAGIC", 0, "register MAGIC must be 0x4c505345, not 0x00000000: is the bitstream loaded?"),
        ("VERSION", 99, "the machine has version 99, the program"),
        ("IDENTITY", 0x1234, "the program was compiled for TINY (0x"),
    ],
)
def test_another_bitstream_is_refused(board, network, register, value, message):
    board.forge(register, value)
    assert message in host.error_of(board, "opened().load(sys.argv[2])", network[1])


def test_a_window_too_small_is_refused(board, network):
    code = "opened(window_bytes=4096).load(sys.argv[2])"
    message = host.error_of(board, code, network[1])
    assert "the window" in message and "4096" in message and "open a larger one" in message
    message = host.error_of(board, "opened(window_bytes=1 << 24).load(sys.argv[2])", network[1])
    assert "window_bytes must be at most the 1048576 bytes" in message


def test_the_kernels_memory_is_no_window(board, network):
    code = "opened(uio='none', buffer='0x3B000000:0x2000000').load(sys.argv[2])"
    message = host.error_of(board, code, network[1])
    assert "lies in memory that the kernel uses (00000000-3bffffff): boot with mem=960M" in message


def test_a_write_outside_the_window_does_not_go_unseen(network):
    """The check of the checks: a host that lies to the accelerator about its window."""
    code = """
transport = open_de1_soc(root=root)(TINY)
transport.window_base -= int(sys.argv[3])
from espalier.program import Program
from espalier.runtime import Session
from espalier.runtime.driver import Driver
program = Program.load(sys.argv[2])
transport.write(int(sys.argv[3]) % transport.window_bytes, program.image.tobytes())
try:
    Session(Driver(transport, program, watchdog_cycles=1000), program).run_integers(
        np.load(sys.argv[4])
    )
except espalier.errors.EspalierError:
    pass
"""
    for shift in (4096, 1 << 16):
        with Board(TINY) as board:
            end = host.ended(host.start(board, code, network[1], shift, network[2]))
            assert end.status == 0, end.err
            assert "leaves the window" in board.report().breach


def test_a_memory_that_hangs_ends_by_watchdog_and_by_timeout(network):
    code = """
device = opened()
session = device.load(sys.argv[2])
driver = session._driver
driver.transport.write_register("WATCHDOG", int(sys.argv[3]))
driver._timeout_s = 0.5
print("loaded", flush=True)
sys.stdin.readline()
session.run_integers(np.load(sys.argv[4]))
"""
    for watchdog, message in ((2000, "watchdog in '"), (0, "still busy after 0.5 s")):
        with Board(TINY) as board:
            process = host.start(board, code, network[1], watchdog, network[2])
            assert process.stdout.readline() == "loaded\n"
            board.hang_memory()
            _, err = process.communicate("go\n", timeout=60)
            assert process.returncode == 1 and message in err, err
