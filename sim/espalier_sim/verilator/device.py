"""The device `rtl`: the Verilog of a program's Config and a memory that answers late and stalls."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espalier.errors import DeviceError
from espalier.spec import registers
from espalier.spec.config import BEAT_BYTES, Config
from espalier.spec.registers import Status

from . import build

WINDOW_BASE = 0x3000_0000
WINDOW_BYTES = 1 << 26
LATENCY_CYCLES = 24
"""DDR3 behind a busy controller answers in 200-300 ns: 20-30 cycles of 100 MHz."""
SLICE_CYCLES = 20_000
"""Cycles between two looks at the clock and at Ctrl-C."""
NEVER = (1 << 64) - 1
_BUSY, _IDLE = 0, 1


class _Written(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("data", ctypes.c_ubyte * BEAT_BYTES))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "open": (
        ctypes.c_void_p,
        (ctypes.c_uint64, ctypes.c_double, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64),
    ),
    "close": (None, (ctypes.c_void_p,)),
    "window": (ctypes.c_void_p, (ctypes.c_void_p,)),
    "write": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)),
    "read": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))),
    "run": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32)),
    "cycles": (ctypes.c_uint64, (ctypes.c_void_p,)),
    "interrupt": (ctypes.c_int, (ctypes.c_void_p,)),
    "violation": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "written": (ctypes.c_uint64, (ctypes.c_void_p, ctypes.POINTER(ctypes.POINTER(_Written)))),
    "forget": (None, (ctypes.c_void_p,)),
    "fail_at": (None, (ctypes.c_void_p, ctypes.c_uint64)),
    "hang_after": (None, (ctypes.c_void_p, ctypes.c_uint64)),
}


def _functions(library: Path) -> dict[str, Any]:
    """The C functions of `harness.cpp` by name, without the prefix."""
    loaded = ctypes.CDLL(str(library))
    functions = {}
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, f"espalier_{name}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


class RtlTransport:
    """A simulated accelerator and its window; see `espalier.runtime.transport.Transport`.

    Beside the protocol it offers what tests of hardware need: `written`, `cycles`, `interrupt`,
    `fail_at`, `hang_after`. A run that breaks the bus protocol or leaves the window raises
    DeviceError in `wait`.

    Parameters
    ----------
    library: the shared library of `config`'s Verilog.
    seed, stall, latency: see `open_rtl`.
    """

    def __init__(
        self,
        config: Config,
        library: Path,
        *,
        seed: int = 0,
        stall: float = 0.0,
        latency: int = LATENCY_CYCLES,
        window_bytes: int = WINDOW_BYTES,
    ):
        self.config, self.window_base, self.window_bytes = config, WINDOW_BASE, window_bytes
        self._call = _functions(library)
        self._handle = self._call["open"](seed, stall, latency, WINDOW_BASE, window_bytes)
        address = self._call["window"](self._handle)
        memory = (ctypes.c_ubyte * window_bytes).from_address(address)
        self._window = memoryview(memory).cast("B")

    def read_register(self, name: str) -> int:
        """Value of a register, read over the bus. Raises DeviceError when there is no answer."""
        value = ctypes.c_uint32()
        code = self._call["read"](self._open(), registers.address(name), ctypes.byref(value))
        self._answered(code, f"reading {name}")
        return value.value

    def write_register(self, name: str, value: int) -> None:
        """Write a register over the bus. Raises DeviceError when there is no answer."""
        if name == "CONTROL" and value & registers.Control.START:
            self._call["forget"](self._open())
        code = self._call["write"](self._open(), registers.address(name), value & 0xFFFF_FFFF)
        self._answered(code, f"writing {name}")

    @staticmethod
    def _answered(code: int, what: str) -> None:
        if code:
            reason = "there was no answer" if code == 1 else "the answer was an error"
            raise DeviceError(f"{what}: {reason}; the simulated register block is broken")

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the window. Raises ValueError outside of it."""
        self._inside(offset, size)
        return bytes(self._window[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of the window. Raises ValueError outside of it."""
        view = memoryview(data).cast("B")
        self._inside(offset, len(view))
        self._window[offset : offset + len(view)] = view

    def _inside(self, offset: int, size: int) -> None:
        self._open()
        if offset < 0 or size < 0 or offset + size > self.window_bytes:
            raise ValueError(
                f"window access must lie in 0..{self.window_bytes}, not {offset}..{offset + size}"
            )

    def wait(self, timeout_s: float) -> None:
        """Run the clock until STATUS is not BUSY.

        Raises DeviceError after `timeout_s` seconds of host time.
        """
        end = time.monotonic() + timeout_s
        status = registers.address("STATUS")
        while (
            progress := self._call["run"](self._open(), SLICE_CYCLES, status, Status.BUSY)
        ) == _BUSY:
            if time.monotonic() > end:
                raise DeviceError(
                    f"the simulated accelerator was still busy after {timeout_s} s "
                    f"({self.cycles} cycles since power-up); wait longer or set WATCHDOG"
                )
        if progress != _IDLE:
            raise DeviceError(
                "reading STATUS: there was no answer; the simulated register block is broken"
            )
        if violation := self._call["violation"](self._handle):
            raise DeviceError(
                f"the accelerator broke a rule of its memory port: {violation.decode()}"
            )

    @property
    def cycles(self) -> int:
        """Clock cycles since power-up."""
        return int(self._call["cycles"](self._open()))

    @property
    def interrupt(self) -> int:
        """Level of the interrupt wire."""
        return int(self._call["interrupt"](self._open()))

    def written(self) -> list[tuple[int, bytes]]:
        """(window offset, 16 bytes) of every beat written since the last START, in order."""
        beats = ctypes.POINTER(_Written)()
        count = self._call["written"](self._open(), ctypes.byref(beats))
        return [(beats[i].address - WINDOW_BASE, bytes(beats[i].data)) for i in range(count)]

    def fail_at(self, offset: int | None) -> None:
        """Answer the beat at window offset `offset` with a bus error from now on; None: no beat."""
        self._call["fail_at"](self._open(), NEVER if offset is None else WINDOW_BASE + offset)

    def hang_after(self, cycles: int | None) -> None:
        """Let the memory stop answering `cycles` from now, for ever; None: answer again."""
        self._call["hang_after"](self._open(), NEVER if cycles is None else cycles)

    def close(self) -> None:
        """Free the model and its window."""
        if self._handle is not None:
            self._window.release()
            self._call["close"](self._handle)
            self._handle = None

    def _open(self) -> Any:
        if self._handle is None:
            raise DeviceError("this device was closed; open it again")
        return self._handle


def open_rtl(
    *,
    seed: int = 0,
    stall: float = 0.0,
    latency: int = LATENCY_CYCLES,
    window_bytes: int = WINDOW_BYTES,
) -> Callable[[Config], RtlTransport]:
    """Entry point `rtl`: a function that builds (once) and opens the simulation of a Config.

    Parameters
    ----------
    seed: of all stalls and latencies; equal seeds give equal runs, cycle by cycle.
    stall: probability, 0 to below 1, that a bus channel pauses in a cycle.
    latency: cycles from a burst to its answer; exact when stall is 0, else the mean.
    window_bytes: size of the window, a multiple of 4096.

    Raises
    ------
    DeviceError: an option is out of range, or later, when a tool to build with is missing.
    """
    if not 0 <= stall < 1:
        raise DeviceError(f"stall must be a probability from 0 to below 1, not {stall}")
    if not 0 <= latency <= 10_000:
        raise DeviceError(f"latency must be 0..10000 cycles, not {latency}")
    if window_bytes % 4096 or not 0 < window_bytes <= 1 << 30:
        raise DeviceError(f"window_bytes must be a multiple of 4096 up to 2^30, not {window_bytes}")

    def opener(config: Config) -> RtlTransport:
        return RtlTransport(
            config,
            build.accelerator(config),
            seed=seed,
            stall=stall,
            latency=latency,
            window_bytes=window_bytes,
        )

    return opener
