"""Host programs beside a simulated board: a process each, as on the board."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from espalier_sim.board.process import Board

PRELUDE = """
import sys
import numpy as np
import espalier
from espalier.runtime import Device
from espalier.runtime.de1_soc import open_de1_soc
from espalier.spec.config import SMALL, TINY
root = sys.argv[1]

def opened(**options):
    return espalier.open("de1-soc", root=root, **options)
"""


LONG = """
with opened() as device:
    session = device.load(sys.argv[2])
    session.run_integers(np.zeros((1, session.most_steps, 5), np.int8) + 99)
"""
"""A run of 5 inputs that takes seconds, in a window of several MiB."""


@dataclass(frozen=True)
class Ended:
    """How a host program ended: exit status (negative: signal), what it printed."""

    status: int
    out: str
    err: str


def start(board: Board, code: str, *arguments: object) -> subprocess.Popen[str]:
    """A host program: `code` after PRELUDE, with `root` and `opened(**options)` at hand."""
    words = [sys.executable, "-c", PRELUDE + code, str(board.root), *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(words, env=board.environment, text=True, **pipes)


def ended(process: subprocess.Popen[str], timeout_s: float = 120) -> Ended:
    out, err = process.communicate(timeout=timeout_s)
    return Ended(process.returncode, out, err)


def kill_while_busy(board: Board, program: object, delay_s: float) -> None:
    """A host program that is killed in the middle of LONG."""
    process = start(board, LONG, program)
    while not board.report().busy or board.report().bursts < 1000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(delay_s)
    process.kill()
    assert ended(process) == Ended(-signal.SIGKILL, "", "")
    assert board.report().busy


def run(board: Board, code: str, *arguments: object) -> str:
    """What a host program prints, which has to succeed; the board must have seen no breach."""
    end = ended(start(board, code, *arguments))
    assert end.status == 0, end.err
    assert not board.report().breach
    return end.out


def error_of(board: Board, code: str, *arguments: object) -> str:
    """The message of the DeviceError (or another of ours) that a host program ends with."""
    end = ended(start(board, code, *arguments))
    assert end.status == 1 and "espalier.errors." in end.err, end.err
    return end.err.rpartition("espalier.errors.")[2]
