"""The driver: what the host writes to the registers, when, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import CapacityError, DeviceError, FaultError, ProgramError
from ..program import Program
from ..spec import isa
from ..spec.registers import COUNTERS, MAGIC, Control, Fault, Status
from .transport import Transport

_ADVICE = {
    Fault.ILLEGAL_INSTRUCTION: "the program is damaged or of another version: compile it again",
    Fault.OUTSIDE_WINDOW: "a register holds a wrong address, or the program is damaged",
    Fault.BUS_ERROR: "the memory refused an access: check the window's address",
    Fault.WATCHDOG: "the bus stalled, or watchdog_cycles is too small",
    Fault.ABORTED: "the run was stopped by the host",
}


class Driver:
    """One machine with one program: checks identity, holds the image, starts entries, reads faults
    and counters.

    Raises
    ------
    ProgramError: the machine has other sizes than the program's, or another version.
    DeviceError: the machine does not answer as an Espalier.
    CapacityError: the image does not fit the window.
    """

    def __init__(
        self,
        transport: Transport,
        program: Program,
        *,
        watchdog_cycles: int = 1 << 20,
        timeout_s: float = 600.0,
    ):
        self.transport = transport
        self.program = program
        self._timeout_s = timeout_s
        self._instructions = program.decode()
        self._check_identity()
        size = transport.window_bytes
        if len(program.image) > size:
            raise CapacityError(
                f"the program's image has {len(program.image)} bytes, the window only {size}; "
                "open a larger one"
            )
        self._settle()
        transport.write_register("WINDOW_BASE", transport.window_base)
        transport.write_register("WINDOW_SIZE", size)
        transport.write_register("WATCHDOG", watchdog_cycles)
        transport.write_register("PROGRAM_LENGTH", program.instructions)
        self._program_loaded = False

    def _check_identity(self) -> None:
        magic = self.transport.read_register("MAGIC")
        if magic != MAGIC:
            raise DeviceError(
                f"register MAGIC must be {MAGIC:#010x}, not {magic:#010x}: is the bitstream loaded?"
            )
        version = self.transport.read_register("VERSION")
        if version != isa.VERSION:
            raise ProgramError(
                f"the machine has version {version}, the program {isa.VERSION}; compile it again"
            )
        identity, config = self.transport.read_register("IDENTITY"), self.program.config
        if identity != config.identity:
            raise ProgramError(
                f"the program was compiled for {config.name} ({config.identity:#010x}), the "
                f"machine has identity {identity:#010x}; compile it with the machine's config"
            )

    def _settle(self) -> None:
        """Leave whatever state an earlier user left the machine in."""
        if self.transport.read_register("STATUS") & Status.BUSY:
            self.abort()
        if self.transport.read_register("STATUS") & Status.FAULT:
            self._clear_fault()

    def start(self, entry: str, registers: Mapping[int, int] | None = None) -> dict[str, int]:
        """Run from an entry to HALT and return the counters.

        Raises
        ------
        FaultError: the machine stopped; it is idle again, its state must be loaded anew (`setup`,
            `reset`).
        DeviceError: no end within the time limit; the run was aborted.
        """
        command = Control.START
        if not self._program_loaded:
            self.transport.write(0, self.program.image.tobytes())
            command |= Control.LOAD_PROGRAM
        for register, value in (registers or {}).items():
            self.transport.write_register(f"R{register}", value)
        self.transport.write_register("ENTRY", self.program.entries[entry])
        self.transport.write_register("CONTROL", int(command))
        self._wait()
        status = self.transport.read_register("STATUS")
        if status & Status.FAULT:
            raise self._fault(entry)
        if not status & Status.DONE:
            raise DeviceError(
                f"the machine is idle without being done after {entry!r} (STATUS {status:#x}); "
                "load the program again"
            )
        self._program_loaded = True
        return self.counters()

    def _wait(self) -> None:
        try:
            self.transport.wait(self._timeout_s)
        except (DeviceError, KeyboardInterrupt):
            self._program_loaded = False
            self.abort()
            raise

    def abort(self) -> None:
        """Stop a run and leave the fault state that this makes."""
        self.transport.write_register("CONTROL", int(Control.ABORT))
        self.transport.wait(self._timeout_s)
        if self.transport.read_register("STATUS") & Status.FAULT:
            self._clear_fault()

    def _clear_fault(self) -> None:
        for _ in range(1000):
            if not self.transport.read_register("STATUS") & Status.DRAINING:
                self.transport.write_register("CONTROL", int(Control.CLEAR_FAULT))
                if not self.transport.read_register("STATUS") & Status.FAULT:
                    return
        raise DeviceError("the fault cannot be cleared: bursts never end; reset the hardware")

    def _fault(self, entry: str) -> FaultError:
        """The error of a machine that stands on a fault; clears it where the bus allows."""
        cause = Fault(self.transport.read_register("FAULT"))
        pc = self.transport.read_register("FAULT_PC")
        address = self.transport.read_register("FAULT_ADDRESS")
        self._program_loaded = False
        message = f"{cause.name.lower().replace('_', ' ')} in {entry!r} at instruction {pc}"
        if pc < len(self._instructions):
            message += f" ({isa.disassemble(self._instructions[pc])})"
        if cause in (Fault.OUTSIDE_WINDOW, Fault.BUS_ERROR):
            message += f", window offset {address:#x} of {self.transport.window_bytes:#x}"
        try:
            self._clear_fault()
        except DeviceError as error:
            message += f"; {error}"
        return FaultError(f"{message}; {_ADVICE[cause]}", cause=cause, pc=pc, address=address)

    def counters(self) -> dict[str, int]:
        """All counters of the last start."""
        read = self.transport.read_register
        return {
            name: read(f"{name.upper()}_LOW") | read(f"{name.upper()}_HIGH") << 32
            for name in COUNTERS
        }

    def write(self, offset: int, data: np.ndarray) -> None:
        self.transport.write(offset, data.tobytes())

    def read(self, offset: int, size: int) -> np.ndarray:
        return np.frombuffer(self.transport.read(offset, size), np.uint8)
