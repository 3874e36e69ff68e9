"""The device `serial` against a board in Python: the transport's promises, and faults of the
line."""

import fcntl
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from link_board import LinkBoard

import espalier
from espalier.cli.checks import examine
from espalier.errors import DeviceError, ProgramError
from espalier.runtime.serial import open_serial
from espalier.spec import isa
from espalier.spec.config import SMALL, TINY
from espalier.spec.link import MOST_PAYLOAD_BYTES, Command
from espalier.spec.registers import MAGIC, Control, address
from espalier_sim.reference.device import ReferenceTransport

WINDOW_BYTES = 1 << 16
QUICK = {"answer_s": 0.05, "baud": 115200}
CONTROL = address("CONTROL")


def reference():
    return ReferenceTransport(TINY, WINDOW_BYTES, None)


@pytest.fixture
def board():
    with LinkBoard(reference()) as board:
        yield board


@pytest.fixture
def transport(board):
    transport = open_serial(board.path, **QUICK)(TINY)
    yield transport
    transport.close()


def test_a_session_is_what_it_is_on_the_reference(board, running_sum, sequence):
    with espalier.open("reference") as device:
        expected = device.load(running_sum).run(sequence)
    with espalier.open(f"serial:{board.path}", **QUICK) as device:
        session = device.load(running_sum)
        for got, wanted in zip(session.run(sequence), expected, strict=True):
            assert np.array_equal(got, wanted)
        assert session.counters["write_beats"] > 0


def test_the_doctor_examines_a_serial_board(board):
    checks = list(examine(f"serial:{board.path}", dict(QUICK), TINY, None))
    assert all(check.fine is not False for check in checks), checks
    assert [check.result for check in checks if check.what == "bitstream"] == [
        f"Espalier, version {isa.VERSION}"
    ]


def test_the_window_is_what_the_board_says(transport, board):
    assert transport.window_bytes == WINDOW_BYTES
    assert transport.window_base == board.transport.window_base
    assert transport.read_register("MAGIC") == MAGIC


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 1), (3, 17), (16, 16), (5, 700), (WINDOW_BYTES - 3, 3), (64, 0)]
)
def test_any_bytes_of_the_window_are_read_and_written(transport, board, offset, size):
    rng = np.random.default_rng(size)
    before = rng.bytes(WINDOW_BYTES)
    board.transport.write(0, before)
    data = rng.bytes(size)
    assert transport.read(offset, size) == before[offset : offset + size]
    transport.write(offset, data)
    after = before[:offset] + data + before[offset + size :]
    assert bytes(board.transport.window) == after
    assert max(len(payload) for *_, payload in board.executed) <= MOST_PAYLOAD_BYTES


@pytest.mark.parametrize(("offset", "size"), [(-1, 4), (WINDOW_BYTES, 1), (WINDOW_BYTES - 8, 16)])
def test_what_is_outside_the_window_is_refused(transport, offset, size):
    with pytest.raises(ValueError, match=r"window access must lie in 0..65536"):
        transport.read(offset, size)
    with pytest.raises(ValueError, match=r"window access must lie in 0..65536"):
        transport.write(offset, bytes(size))


def test_settings_go_out_together_before_a_command(transport, board):
    del board.executed[:]
    for name, value in {"R1": 5, "ENTRY": 9, "R0": 7, "PROGRAM_LENGTH": 3}.items():
        transport.write_register(name, value)
    assert board.executed == []
    transport.write_register("CONTROL", Control.CLEAR_FAULT)
    words = [value.to_bytes(4, "little") for value in (9, 3, 7, 5)]
    assert board.executed == [
        (Command.WRITE_REGISTERS, address("ENTRY"), words[0] + words[1]),
        (Command.WRITE_REGISTERS, address("R0"), words[2] + words[3]),
        (Command.WRITE_REGISTERS, CONTROL, bytes([8, 0, 0, 0])),
    ]
    assert [transport.read_register(name) for name in ("R0", "R1", "ENTRY")] == [7, 5, 9]


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_repaired_and_nothing_wrong_returned(running_sum, sequence, seed):
    with espalier.open("reference") as device:
        expected = device.load(running_sum).run(sequence)
    with (
        LinkBoard(reference(), damage=1e-3, seed=seed) as board,
        espalier.open(f"serial:{board.path}", **QUICK) as device,
    ):
        session = device.load(running_sum)
        for _ in range(5):
            for got, wanted in zip(session.run(sequence), expected, strict=True):
                assert np.array_equal(got, wanted)
        starts = [p for c, a, p in board.executed if (c, a) == (Command.WRITE_REGISTERS, CONTROL)]
        assert len(starts) == 2 + 2 * 5 * len(sequence)
        assert device._transport.repeats > 0


def test_a_start_whose_answer_is_lost_starts_once(running_sum, sequence):
    lost = []

    def lose(command, place):
        if (command, place) == (Command.WRITE_REGISTERS, CONTROL) and len(lost) < 3:
            lost.append(place)
            return True
        return False

    with (
        LinkBoard(reference(), lose=lose) as board,
        espalier.open(f"serial:{board.path}", **QUICK) as device,
    ):
        device.load(running_sum)
        starts = [p for c, a, p in board.executed if (c, a) == (Command.WRITE_REGISTERS, CONTROL)]
        assert len(lost) == 3 and len(starts) == 2  # setup and reset


def test_too_much_damage_is_an_error_and_the_next_opening_works(running_sum, sequence):
    with LinkBoard(reference()) as board:
        with espalier.open(f"serial:{board.path}", retries=2, **QUICK) as device:
            session = device.load(running_sum)
            board.damage = 0.2
            with pytest.raises(DeviceError, match=r"no answer to \w+ after 3 attempts; is the"):
                session.run(sequence)
            board.damage = 0.0
            with pytest.raises(DeviceError, match="Open it again"):
                session.run(sequence)
        with espalier.open(f"serial:{board.path}", **QUICK) as device:
            assert device.load(running_sum).run(sequence)[0].shape[:2] == sequence.shape[:2]


@pytest.mark.parametrize("name", ["CONTROL", "STATUS"])
def test_an_interrupted_write_loses_the_link_and_an_interrupted_read_does_not(
    transport, monkeypatch, name
):
    """A write may have been executed, and would be executed again under a new number."""

    def interrupted(timeout_s):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transport._port, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            if name == "CONTROL":
                transport.write_register(name, Control.START)
            else:
                transport.read_register(name)
    if name == "CONTROL":
        with pytest.raises(DeviceError, match="may have been executed; open the device again"):
            transport.read_register("MAGIC")
    else:
        assert transport.read_register("MAGIC") == MAGIC


def test_silence_ends_in_an_error_within_its_time(board):
    board.lose = lambda command, place: True
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"no answer to HELLO after 3 attempts; is the board"):
        open_serial(board.path, retries=2, **QUICK)(TINY)
    assert time.monotonic() - begin < 2
    board.lose = lambda command, place: False
    open_serial(board.path, **QUICK)(TINY).close()


def test_an_answer_that_comes_late_is_not_taken_for_the_next_one(board):
    transport = open_serial(board.path, answer_s=0.02, baud=115200)(TINY)
    slow = []

    def late(command, place):
        if command is Command.READ_REGISTERS and not slow:
            slow.append(place)
            time.sleep(0.1)
        return False

    board.lose = late
    assert transport.read_register("MAGIC") == MAGIC
    assert transport.read_register("IDENTITY") == TINY.identity
    assert transport.read_register("STATUS") == 0 and transport.repeats > 0
    transport.close()


def test_a_busy_machine_is_an_error_in_time(transport, board, monkeypatch):
    monkeypatch.setattr(board.transport, "read_register", lambda name: 1)
    with pytest.raises(DeviceError, match=r"still busy after 0.05 s; wait longer"):
        transport.wait(0.05)


def test_the_wrong_bitstream_is_named(running_sum):
    with (
        LinkBoard(ReferenceTransport(SMALL, WINDOW_BYTES, None)) as board,
        espalier.open(f"serial:{board.path}", **QUICK) as device,
        pytest.raises(ProgramError, match=r"compiled for TINY .* the machine has identity"),
    ):
        device.load(running_sum)


def test_a_program_larger_than_the_board_is_refused(running_sum):
    with (
        LinkBoard(ReferenceTransport(TINY, 4096, None)) as board,
        espalier.open(f"serial:{board.path}", **QUICK) as device,
        pytest.raises(espalier.EspalierError, match="the window has 4096"),
    ):
        device.load(running_sum)


OTHER = """
import sys
from espalier.errors import DeviceError
from espalier.runtime.serial import open_serial
from espalier.spec.config import TINY
try:
    open_serial(sys.argv[1])(TINY)
except DeviceError as error:
    print(error)
"""


def test_a_second_process_is_told_and_the_first_goes_on(transport, board):
    told = subprocess.run([sys.executable, "-c", OTHER, board.path], capture_output=True, text=True)
    assert "another process uses this serial port; close it there first" in told.stdout
    assert transport.read_register("MAGIC") == MAGIC


def test_a_closed_device_says_so_and_frees_the_port(transport, board):
    transport.close()
    transport.close()
    with pytest.raises(DeviceError, match="this device was closed; open it again"):
        transport.read_register("MAGIC")
    file = os.open(board.path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(file)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("/dev/nowhere", {}, "/dev/nowhere: no such serial port; is the board plugged in"),
        ("/dev/null", {}, "/dev/null: is not a serial port"),
        ("/dev/null", {"baud": 3}, "not 3; nearest: "),
        ("/dev/null", {"answer_s": 0}, "answer_s must be above 0 and at most 3600, not 0"),
        ("/dev/null", {"retries": -1}, "retries must be 0..1000, not -1"),
    ],
)
def test_impossible_ports_and_options_are_named(path, options, message, running_sum):
    with pytest.raises(DeviceError, match=message), espalier.open(f"serial:{path}", **options) as d:
        d.load(running_sum)


def test_a_port_that_goes_away_is_named():
    with LinkBoard(reference()) as board:
        transport = open_serial(board.path, **QUICK)(TINY)
    with pytest.raises(DeviceError, match=r"the serial port is gone .*; plug the board in"):
        for _ in range(3):
            transport.read_register("MAGIC")
    transport.close()
