"""The reference machine behind the transport that every device offers: registers and a window of
memory."""

from __future__ import annotations

from collections.abc import Callable

from espalier.spec import isa, registers
from espalier.spec.config import Config
from espalier.spec.registers import Control, Fault, Status

from .machine import FaultRaised, Machine, Observer

WINDOW_BYTES = 1 << 26


class ReferenceTransport:
    """Registers and window of one reference machine; a START runs to its end at once. See
    `runtime.transport.Transport`."""

    def __init__(
        self, config: Config, window_bytes: int = WINDOW_BYTES, observer: Observer | None = None
    ):
        self.config, self.window_base, self.window_bytes = config, 0, window_bytes
        self.window = bytearray(window_bytes)
        self.machine = Machine(config, self.window, observer)
        self._values = {name: 0 for name in registers.REGISTERS}
        self._values.update(MAGIC=registers.MAGIC, VERSION=isa.VERSION, IDENTITY=config.identity)

    def read_register(self, name: str) -> int:
        """Value of a register. Raises ValueError for an unknown name."""
        registers.address(name)
        if name.startswith("R") and name[1:].isdigit():
            return self.machine.registers[int(name[1:])]
        for suffix, shift in (("_LOW", 0), ("_HIGH", 32)):
            if name.endswith(suffix):
                return (
                    self.machine.counters[name.removesuffix(suffix).lower()] >> shift
                ) & 0xFFFFFFFF
        return self._values[name]

    def write_register(self, name: str, value: int) -> None:
        """Write a register or give a command. Raises ValueError for an unknown name."""
        registers.address(name)
        if name == "CONTROL":
            self._command(Control(value))
        elif name.startswith("R") and name[1:].isdigit():
            self.machine.registers[int(name[1:])] = value & 0xFFFFFFFF
        elif registers.REGISTERS[name].access == "rw":
            self._values[name] = value & 0xFFFFFFFF

    def _command(self, control: Control) -> None:
        if Control.CLEAR_FAULT in control:
            self._values.update(STATUS=self._values["STATUS"] & ~Status.FAULT, FAULT=0)
        if Control.START in control and not self._values["STATUS"] & Status.FAULT:
            self._start(Control.LOAD_PROGRAM in control)

    def _start(self, load_program: bool) -> None:
        machine = self.machine
        machine.start()
        machine.window_size = min(self._values["WINDOW_SIZE"], self.window_bytes)
        try:
            if load_program:
                machine.load_program(self._values["PROGRAM_LENGTH"])
            machine.run(self._values["ENTRY"], self._values["PROGRAM_LENGTH"])
            self._values.update(STATUS=int(Status.DONE), FAULT=int(Fault.NONE))
        except FaultRaised as fault:
            machine.dirty = True
            self._values.update(
                STATUS=int(Status.FAULT),
                FAULT=int(fault.cause),
                FAULT_PC=machine.pc,
                FAULT_ADDRESS=fault.address,
            )

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the window. Raises ValueError outside of it."""
        self._inside(offset, size)
        return bytes(self.window[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of the window. Raises ValueError outside of it."""
        self._inside(offset, len(data))
        self.window[offset : offset + len(data)] = data

    def _inside(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.window_bytes:
            raise ValueError(
                f"window access must lie in 0..{self.window_bytes}, not {offset}..{offset + size}"
            )

    def wait(self, timeout_s: float) -> None:
        """A run has always ended when START returns."""

    def close(self) -> None:
        """Nothing to give back."""


def open_reference(
    *, window_bytes: int = WINDOW_BYTES, observer: Observer | None = None
) -> Callable[[Config], ReferenceTransport]:
    """Entry point `reference`: a function that makes the machine of a program's Config."""
    return lambda config: ReferenceTransport(config, window_bytes, observer)
