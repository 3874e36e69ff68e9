"""The serial board without a board: Ulx3sFabric in Verilator behind a pseudo-terminal, and the very
transport that drives a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import espalier
from espalier.errors import DeviceError, FaultError, ProgramError
from espalier.runtime.serial import open_serial
from espalier.spec.config import SMALL, TINY, ULX3S
from espalier.spec.registers import Status
from espalier_sim.board.serial import SerialBoard

WINDOW_BYTES = 1 << 16
PATIENT = {"answer_s": 2.0, "retries": 40}
"""A busy computer simulates slowly."""


@pytest.fixture(scope="module")
def network():
    """A GRU from PyTorch with its program, 20 inputs and what the reference makes of them."""
    torch.manual_seed(0)
    model = torch.nn.GRU(5, 12, batch_first=True).eval()
    x = torch.randn(20, 6, 5)
    program = espalier.compile(model, x[:1], config=TINY)
    with espalier.open("reference") as device:
        session = device.load(program)
        return program, x.numpy(), session.run(x.numpy())


def board(**options):
    return SerialBoard(TINY, window_bytes=WINDOW_BYTES, **options)


def check_runs(session, inputs, expected):
    ports = session.program.outputs
    for number, sample in enumerate(inputs):
        results = session.run(sample[np.newaxis])
        for port, got, wanted in zip(ports, results, expected, strict=True):
            assert np.array_equal(got, np.take(wanted, [number], port.batch_axis)), port.name


@pytest.mark.slow
def test_the_board_of_the_bitstream():
    """All 128 lanes, groups of four columns, no reductions, the whole window."""
    torch.manual_seed(1)
    model = torch.nn.GRU(28, 64, batch_first=True).eval()
    x = torch.randn(2, 4, 28)
    program = espalier.compile(model, x[:1], config=ULX3S)
    with espalier.open("reference") as device:
        expected = device.load(program).run(x.numpy())
    with (
        SerialBoard(ULX3S) as simulated,
        espalier.open(f"serial:{simulated.path}", **PATIENT) as device,
    ):
        check_runs(device.load(program), x.numpy(), expected)


def test_twenty_inferences_are_those_of_the_reference(network):
    program, inputs, expected = network
    with board() as simulated, espalier.open(f"serial:{simulated.path}", **PATIENT) as device:
        session = device.load(program)
        check_runs(session, inputs, expected)
        assert session.counters["cycles"] > 0
        assert device._transport.repeats == 0


@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_damages_bytes_never_gives_a_wrong_result(network, seed):
    program, inputs, expected = network
    with (
        board(damage=1e-3, seed=seed) as simulated,
        espalier.open(f"serial:{simulated.path}", **PATIENT | {"answer_s": 0.3}) as device,
    ):
        session = device.load(program)
        check_runs(session, inputs[:5], expected)
        assert device._transport.repeats > 0


def test_a_dead_line_is_an_error(network):
    program, *_ = network
    with (
        board(damage=0.5) as simulated,
        espalier.open(f"serial:{simulated.path}", answer_s=0.1, retries=3) as device,
        pytest.raises(DeviceError, match="no answer to HELLO after 4 attempts"),
    ):
        device.load(program)


def test_another_bitstream_is_named(network):
    _, inputs, _ = network
    model = torch.nn.GRU(5, 12, batch_first=True).eval()
    program = espalier.compile(model, torch.from_numpy(inputs[:1]), config=SMALL)
    with (
        board() as simulated,
        espalier.open(f"serial:{simulated.path}", **PATIENT) as device,
        pytest.raises(ProgramError, match=r"compiled for SMALL .* the machine has identity"),
    ):
        device.load(program)


KILLED = """
import sys
import numpy as np
import espalier
with espalier.open(sys.argv[1], answer_s=2.0, retries=40) as device:
    session = device.load(sys.argv[2])
    print("running", flush=True)
    while True:
        session.run(np.ones((1, 200, 5), np.float32))
"""


def test_a_killed_host_leaves_a_machine_that_the_next_one_takes(network, tmp_path):
    program, inputs, expected = network
    file = program.save(tmp_path / "gru.espalier")
    with board() as simulated:
        path = f"serial:{simulated.path}"
        host = subprocess.Popen(
            [sys.executable, "-c", KILLED, path, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert host.stdout is not None and host.stdout.readline() == "running\n"
        with pytest.raises(DeviceError, match="another process uses this serial port"):
            open_serial(simulated.path)(TINY)
        time.sleep(0.5)
        os.kill(host.pid, signal.SIGKILL)
        host.communicate()
        with espalier.open(path, **PATIENT) as device:
            check_runs(device.load(program), inputs[:3], expected)


def test_a_fault_is_told_and_cleared(network):
    program, inputs, expected = network
    with board() as simulated, espalier.open(f"serial:{simulated.path}", **PATIENT) as device:
        session = device.load(program)
        transport = device._transport
        transport.write_register("WINDOW_SIZE", 4096)
        with pytest.raises(FaultError, match="outside window in"):
            session.run(inputs[:1])
        assert not transport.read_register("STATUS") & Status.FAULT
        check_runs(device.load(program), inputs[:2], expected)
