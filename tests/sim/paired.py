"""One program on the reference machine and on the simulated hardware, every start compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from espalier.program import Program
from espalier.runtime import Session
from espalier.runtime.driver import Driver
from espalier.runtime.token_session import TokenSession
from espalier.spec import isa
from espalier.spec.registers import COUNTERS
from espalier_sim.reference.device import ReferenceTransport
from espalier_sim.verilator.device import RtlTransport, open_rtl

HARDWARE_ONLY = ("cycles", "product_cycles")
SHARED = tuple(name for name in COUNTERS if name not in HARDWARE_ONLY)
WINDOW_BYTES = 1 << 22
Result = TypeVar("Result")


@dataclass(frozen=True)
class Start:
    """What one START left behind: beats written in order, counters, registers R0 to R15."""

    written: list[tuple[int, bytes]]
    counters: dict[str, int]
    registers: list[int]


class Witness:
    """A transport that keeps a `Start` for every run that ended."""

    def __init__(self, transport: ReferenceTransport | RtlTransport):
        self._transport, self.starts = transport, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def wait(self, timeout_s: float) -> None:
        self._transport.wait(timeout_s)
        inner, read = self._transport, self._transport.read_register
        rtl = isinstance(inner, RtlTransport)
        written = inner.written() if rtl else list(inner.machine.written)
        counters = {
            name: read(f"{name.upper()}_LOW") | read(f"{name.upper()}_HIGH") << 32
            for name in SHARED
        }
        registers = [read(f"R{index}") for index in range(isa.REGISTERS)]
        self.starts.append(Start(written, counters, registers))


def on_reference(program: Program, window_bytes: int = WINDOW_BYTES) -> tuple[Any, Witness]:
    """A session on the reference machine, with its witness."""
    witness = Witness(ReferenceTransport(program.config, window_bytes))
    return _session(witness, program), witness


def on_rtl(
    program: Program, window_bytes: int = WINDOW_BYTES, **options: Any
) -> tuple[Any, Witness]:
    """A session on the simulated hardware, with its witness; options as of `open_rtl`."""
    witness = Witness(open_rtl(window_bytes=window_bytes, **options)(program.config))
    return _session(witness, program), witness


def _session(witness: Witness, program: Program) -> Any:
    make = Session if program.tokens is None else TokenSession
    return make(Driver(witness, program), program)


def compare(
    program: Program,
    script: Callable[[Any], Result],
    window_bytes: int = WINDOW_BYTES,
    **options: Any,
) -> tuple[Result, int]:
    """Run `script` on both; results, all that is written to DDR, counters and registers are equal.

    Returns the result, and the cycles that the hardware was simulated for."""
    reference, expected = on_reference(program, window_bytes)
    rtl, found = on_rtl(program, window_bytes, **options)
    result, other = script(reference), script(rtl)
    for number, (a, b) in enumerate(zip(expected.starts, found.starts, strict=True)):
        assert a.written == b.written, f"start {number}: words written differ"
        assert a.counters == b.counters, f"start {number}"
        assert a.registers == b.registers, f"start {number}"
    assert expected.read(0, window_bytes) == found.read(0, window_bytes), "windows differ"
    equal(result, other)
    cycles = found.cycles
    found.close()
    return result, cycles


def equal(left: Any, right: Any) -> None:
    """Arrays, or tuples and lists of them, are equal bit for bit."""
    if isinstance(left, tuple | list):
        for a, b in zip(left, right, strict=True):
            equal(a, b)
    else:
        np.testing.assert_array_equal(left, right, strict=True)


def in_chunks(session: Session, x: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Outputs of one sample's sequence x [1, T, features] in float32, from the zero state, cut
    into chunks of `sizes` time steps: those of every time step joined, others of the last."""
    session.reset()
    parts = []
    for chunk in np.split(x, np.cumsum(sizes)[:-1], axis=1):
        result = session.step(chunk)
        parts.append(result if isinstance(result, tuple) else (result,))
    return [
        np.concatenate(pieces, axis=port.time_axis) if port.time_axis is not None else pieces[-1]
        for port, pieces in zip(session.program.outputs, zip(*parts, strict=True), strict=True)
    ]
