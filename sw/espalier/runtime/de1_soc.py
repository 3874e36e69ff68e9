"""The device `de1-soc`: the accelerator in a DE1-SoC's FPGA, from the board's own ARM Linux.

    registers   UIO device `espalier`, map 0: the lightweight bridge; else /dev/mem
    window      u-dma-buf (cached), else map 1 of the UIO device, else /dev/mem
    interrupt   the UIO device; without one, STATUS is polled

The kernel of Debian 12 has neither UIO's platform driver nor the FPGA manager: there it is /dev/mem
and polling. docs/board.md says how a board gets each of them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import DeviceError
from ..spec import registers
from ..spec.config import Config
from ..spec.registers import Status
from . import fpga, udmabuf, uio
from .mapped import Buffer, Registers, map_device, open_device

REGISTERS_ADDRESS = 0xFF20_0000
"""Where the processor sees the lightweight bridge. Source: Cyclone V Hard Processor System
Technical Reference Manual, address map."""
NAME = "espalier"
BUFFER_NAME = "espalier-buffer"
"""Names of the UIO device and of the u-dma-buf buffer in our device tree overlay."""
RESERVED = "0x3C000000:0x4000000"
"""The last 64 MiB of the board's 1 GiB: what the overlay reserves, or `mem=960M` leaves over."""
AUTO, NO_UIO, UIO_MAP = "auto", "none", "uio"
RANGE = re.compile(r"(0x[0-9a-fA-F]+|\d+):(0x[0-9a-fA-F]+|\d+)")
QUICK_POLLS = 4
"""Looks at STATUS before waiting for the interrupt: short runs end sooner than it arrives."""
SLICE_S = 0.25
"""Longest wait for one interrupt: a lost one costs this, not the whole time limit."""
PAUSE_S = 100e-6
"""Between two looks at STATUS where there is no interrupt."""


class De1SocTransport:
    """Registers and window of the accelerator in the FPGA; see `runtime.transport.Transport`.

    One process owns it: a lock on the file of the registers, which the kernel releases when that
    process ends, however it ends. What a killed process left running is stopped by whoever loads
    the next program (`driver`).

    Raises
    ------
    DeviceError: FPGA or bridges are not ready, something is missing or may not be opened, another
        process owns the accelerator.
    """

    def __init__(self, config: Config, options: Options):
        self.config = config
        self._options = options
        self._closers: list[Callable[[], None]] = []
        self.interrupt: uio.Interrupt | None = None
        """None where STATUS is polled."""
        fpga.require(options.root)
        try:
            device = options.find_uio()
            self._registers = self._map_registers(device)
            self._buffer = self._map_buffer(device)
        except BaseException:
            self.close()
            raise
        self.window_base, self.window_bytes = self._buffer.base, self._buffer.size

    def _map_registers(self, device: uio.Uio | None) -> Registers:
        path = self._options.root / "dev/mem" if device is None else device.device
        descriptor = open_device(path)
        self._closers.append(lambda: os.close(descriptor))
        _lock(descriptor, path, self._options.root)
        offset = REGISTERS_ADDRESS if device is None else uio.Uio.offset(0)
        if device is not None and self._options.interrupt:
            self.interrupt = uio.Interrupt(descriptor)
        mapping = map_device(descriptor, mmap.PAGESIZE, offset, "the register block")
        result = Registers(mapping)
        self._closers.append(result.close)
        return result

    def _map_buffer(self, device: uio.Uio | None) -> Buffer:
        buffer = self._options.map_buffer(device)
        self._closers.append(buffer.close)
        return buffer

    def read_register(self, name: str) -> int:
        """Value of a register. Raises ValueError for an unknown name."""
        self._check_open()
        return self._registers.read(registers.address(name))

    def write_register(self, name: str, value: int) -> None:
        """Write a register. Raises ValueError for an unknown name."""
        self._check_open()
        self._registers.write(registers.address(name), value)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the window. Raises ValueError outside of it."""
        return self._buffer.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of the window. Raises ValueError outside of it."""
        self._buffer.write(offset, data)

    def wait(self, timeout_s: float) -> None:
        """Return when STATUS is not BUSY. Raises DeviceError after `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        looks = 0
        while self.read_register("STATUS") & Status.BUSY:
            left = end - time.monotonic()
            if left <= 0:
                raise DeviceError(
                    f"the accelerator was still busy after {timeout_s} s: the run is longer than "
                    "that (raise timeout_s), or it hangs (set watchdog_cycles)"
                )
            looks += 1
            if looks > QUICK_POLLS:
                self._pause(min(left, SLICE_S))

    def _pause(self, longest_s: float) -> None:
        if self.interrupt is None:
            time.sleep(PAUSE_S)
        else:
            self.interrupt.wait(longest_s)

    def close(self) -> None:
        """Unmap everything and release the lock; a second call does nothing."""
        while self._closers:
            self._closers.pop()()

    def _check_open(self) -> None:
        if not self._closers:
            raise DeviceError("this device was closed; open it again")


class Options:
    """Checked options of `open_de1_soc`, and what they lead to.

    Raises DeviceError when one is impossible.
    """

    def __init__(
        self, root: str, uio_name: str, buffer: str, window_bytes: int | None, interrupt: bool
    ):
        self.root = Path(root)
        self.uio_name = uio_name
        self.buffer = str(buffer)
        self.window_bytes = window_bytes
        self.interrupt = bool(interrupt)
        if window_bytes is not None and (window_bytes <= 0 or window_bytes % mmap.PAGESIZE):
            raise DeviceError(
                f"window_bytes must be a positive multiple of {mmap.PAGESIZE}, not {window_bytes}"
            )
        if ":" in self.buffer and not RANGE.fullmatch(self.buffer):
            raise DeviceError(
                "buffer must be auto, uio, the name of a u-dma-buf device, or ADDRESS:BYTES as in "
                f"{RESERVED}, not {buffer!r}"
            )
        if uio_name == NO_UIO and self.buffer == UIO_MAP:
            raise DeviceError("buffer must not be uio where uio is none; leave it auto")

    def find_uio(self) -> uio.Uio | None:
        """The UIO device to use; None for /dev/mem."""
        if self.uio_name == NO_UIO or (self.uio_name == AUTO and not uio.names(self.root)):
            return None
        return uio.find(self.root, NAME if self.uio_name == AUTO else self.uio_name)

    def map_buffer(self, device: uio.Uio | None) -> Buffer:
        """The window that `buffer` names."""
        if RANGE.fullmatch(self.buffer):
            return self._memory(self.buffer)
        name = BUFFER_NAME if self.buffer == AUTO else self.buffer
        folder = None if self.buffer == UIO_MAP else udmabuf.find(self.root, name)
        if folder is not None:
            return udmabuf.CachedBuffer(self.root / "dev" / name, folder, self.window_bytes)
        if self.buffer == AUTO and device is None:
            return self._memory(RESERVED)
        if self.buffer not in (AUTO, UIO_MAP) or device is None or len(device.maps) < 2:
            raise DeviceError(
                f"there is no memory for the window: no u-dma-buf device {name!r}"
                + ("" if device is None else f", and {device.device} has no second memory")
                + "; apply the device tree overlay, or name a reserved range with buffer="
                "ADDRESS:BYTES (docs/board.md)"
            )
        memory = device.maps[1]
        return self._plain(device.device, uio.Uio.offset(1), memory.address, memory.size)

    def _memory(self, text: str) -> Buffer:
        """A window in physical memory, which must not be the kernel's."""
        base, size = (int(number, 0) for number in text.split(":"))
        used = size if self.window_bytes is None else self.window_bytes
        taken = fpga.system_memory(self.root, base, used)
        if taken:
            raise DeviceError(
                f"the window {base:#x}:{used:#x} lies in memory that the kernel uses ({taken}): "
                "boot with mem=960M, or name another range with buffer=ADDRESS:BYTES"
            )
        return self._plain(self.root / "dev/mem", base, base, size)

    def _plain(self, path: Path, offset: int, base: int, whole: int) -> Buffer:
        """A window that is mapped without cache."""
        size = whole if self.window_bytes is None else self.window_bytes
        if size > whole:
            raise DeviceError(
                f"window_bytes must be at most the {whole} bytes of the memory, not {size}"
            )
        descriptor = open_device(path)
        try:
            return Buffer(map_device(descriptor, size, offset, f"the window in {path}"), base, size)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, root: Path) -> None:
    """Raises DeviceError when another process owns the accelerator."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DeviceError(
            f"the accelerator is in use{_holder(os.fstat(descriptor).st_ino)} ({path} is locked): "
            "one process owns it; close it there, or end that process"
        ) from error


def _holder(inode: int) -> str:
    """` by process N`, as far as the kernel tells."""
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    for line in locks:
        fields = line.split()
        if "FLOCK" in fields and fields[5].rpartition(":")[2] == str(inode):
            return f" by process {fields[4]}"
    return ""


def open_de1_soc(
    *,
    root: str = "/",
    uio: str = AUTO,
    buffer: str = AUTO,
    window_bytes: int | None = None,
    interrupt: bool = True,
) -> Callable[[Config], De1SocTransport]:
    """Entry point `de1-soc`: a function that opens the accelerator in the FPGA.

    Parameters
    ----------
    root: folder above dev, sys and proc; the simulated board has one of its own.
    uio: name of the UIO device; `none` maps the registers through /dev/mem and polls, and so does
        `auto` where the kernel has no UIO devices at all; else `auto` is `espalier`.
    buffer: where the window is: `uio` (the UIO device's second memory), the name of a u-dma-buf
        device, ADDRESS:BYTES of memory that the kernel does not use, through /dev/mem; `auto`
        takes a u-dma-buf device `espalier-buffer` where there is one, else `uio`, else RESERVED.
    window_bytes: use that much of it, a multiple of 4096; all of it unless given.
    interrupt: wait for the interrupt; otherwise poll.

    Raises
    ------
    DeviceError: an option is impossible, or later, when the board is not ready.
    """
    options = Options(root, uio, buffer, window_bytes, interrupt)
    return lambda config: De1SocTransport(config, options)
