"""What every device is to the runtime: registers, window memory, waiting for the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from ..spec.config import Config


@runtime_checkable
class Transport(Protocol):
    """An accelerator of one `Config` with its window of DDR; devices are closed, not used again.

    The window is memory that host and accelerator share. Offsets count from its start; the bus
    address of its start is `window_base`, which the host writes to the WINDOW_BASE register.
    Nothing here knows of programs: sessions do.
    """

    config: Config
    window_base: int
    """Bus address of window offset 0, a multiple of 4096."""
    window_bytes: int
    """Size of the window."""

    def read_register(self, name: str) -> int:
        """The 32-bit value of the register called `name` (`spec.registers.REGISTERS`)."""
        ...

    def write_register(self, name: str, value: int) -> None:
        """Write 32 bits to the register called `name`. CONTROL takes `spec.registers.Control`."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes of window memory. Raises ValueError when they do not lie in the window."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` (bytes or any contiguous buffer) into window memory.

        Raises ValueError when it does not lie in the window.
        """
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when STATUS is not BUSY any more: done, or stopped on a fault.

        Raises DeviceError when that takes longer than `timeout_s` seconds of host time.
        """
        ...

    def close(self) -> None:
        """Give back what the device holds; a second call does nothing."""
        ...


Opener = Callable[[Config], Transport]
"""Opens the transport for a configuration, which is known only when a program is loaded.

An entry point of the group `espalier.devices` names a function `open_xxx(**options) -> Opener`; it
checks its options at once (DeviceError) and leaves the rest to the opener.
"""
