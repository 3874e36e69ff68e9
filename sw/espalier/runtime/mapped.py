"""Memory of other hardware, mapped into this process: registers and buffers, aligned accesses only.

Device memory on ARM forbids unaligned accesses, and a register must be reached by exactly one load
or store of its width. So nothing here slices a `mmap` object, which copies bytes.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from ..errors import DeviceError

UNIT = 8
"""Bytes of the words that buffers are copied in: the widest that armhf's memcpy may want aligned.
"""


def open_device(path: Path, *, uncached: bool = True) -> int:
    """A file descriptor of `path` for reading and writing; `uncached` asks for a mapping without
    cache (O_SYNC), which drivers of memory understand and others ignore.

    Raises DeviceError saying what to do.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_SYNC if uncached else 0))
    except FileNotFoundError as error:
        raise DeviceError(f"{path} does not exist: {_ADVICE}") from error
    except PermissionError as error:
        raise DeviceError(
            f"{path} may not be opened by this user: install the udev rule and join its group, "
            "or use sudo (docs/board.md)"
        ) from error
    except OSError as error:
        raise DeviceError(f"{path} cannot be opened ({error.strerror}): {_ADVICE}") from error


_ADVICE = "is the device tree overlay applied and its driver loaded? `espalier doctor` looks"


def map_device(descriptor: int, size: int, offset: int, what: str) -> mmap.mmap:
    """`size` bytes from `offset` of an open file, shared. Raises DeviceError."""
    try:
        return mmap.mmap(descriptor, size, offset=offset)
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{what} cannot be mapped ({size:#x} bytes from {offset:#x}: {error}); the kernel "
            "refuses that range, or the device is smaller"
        ) from error


class Registers:
    """32-bit registers in `mapping`: one aligned 32-bit load or store for each access.

    An item of a memoryview of format I is copied by a 4-byte memcpy of constant size, which
    compilers make one instruction (`ldr`, `str` in Debian's Python 3.11 for armhf; `mov` on
    x86-64). The simulated board answers a narrower write with an error.
    """

    def __init__(self, mapping: mmap.mmap):
        self._mapping = mapping
        self._bytes = memoryview(mapping)
        self._words = self._bytes.cast("I")

    def read(self, address: int) -> int:
        """The register at byte `address`."""
        return self._words[address >> 2]

    def write(self, address: int, value: int) -> None:
        """Write the register at byte `address`."""
        self._words[address >> 2] = value & 0xFFFF_FFFF

    def close(self) -> None:
        self._words.release()
        self._bytes.release()
        self._mapping.close()


class Buffer:
    """Memory that host and accelerator share, `size` bytes from bus address `base`.

    Accesses are whole aligned 8-byte words of the mapping; an access that starts or ends inside
    a word reads the word first. This class is for mappings without cache, where nothing else is
    needed: on ARM, UIO maps memory strongly ordered, as /dev/mem does where the kernel does not use
    the memory itself. Each access then reaches the memory before the next one is made, register
    accesses included. Reading the last word back after writing costs one access and does not rely
    on that for the words before it.

    Raises
    ------
    DeviceError: base and size are no multiples of 4096.
    """

    def __init__(self, mapping: mmap.mmap, base: int, size: int):
        if base % mmap.PAGESIZE or size % mmap.PAGESIZE or size <= 0:
            raise DeviceError(
                f"the window's address and size must be multiples of {mmap.PAGESIZE}, "
                f"not {base:#x} and {size:#x}"
            )
        self.base, self.size = base, size
        self._mapping = mapping
        self._words: np.ndarray | None = np.frombuffer(mapping, np.uint64, size // UNIT)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Raises ValueError outside of the window."""
        first, end = self._range(offset, size)
        self.before_read(first * UNIT, (end - first) * UNIT)
        words = self._view()[first:end].copy()
        start = offset - first * UNIT
        return words.tobytes()[start : start + size]

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Raises ValueError outside of the window."""
        source = memoryview(data).cast("B")
        first, end = self._range(offset, len(source))
        if first == end:
            return
        words = np.empty(end - first, np.uint64)
        self._keep_edges(words, first, offset, len(source))
        start = offset - first * UNIT
        words.view(np.uint8)[start : start + len(source)] = source
        self._view()[first:end] = words
        self.after_write(first * UNIT, (end - first) * UNIT)

    def before_read(self, offset: int, size: int) -> None:
        """What makes the accelerator's writes visible here."""

    def after_write(self, offset: int, size: int) -> None:
        """What makes the host's writes visible to the accelerator."""
        self._view()[(offset + size) // UNIT - 1].item()

    def _keep_edges(self, words: np.ndarray, first: int, offset: int, size: int) -> None:
        """Read the words that are written in part."""
        if offset % UNIT:
            words[:1] = self._view()[first : first + 1]
        if (offset + size) % UNIT:
            last = first + len(words) - 1
            words[-1:] = self._view()[last : last + 1]

    def _range(self, offset: int, size: int) -> tuple[int, int]:
        """The words that hold `size` bytes from `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(
                f"window access must lie in 0..{self.size}, not {offset}..{offset + size}"
            )
        first = offset // UNIT
        return first, -(-(offset + size) // UNIT) if size else first

    def _view(self) -> np.ndarray:
        if self._words is None:
            raise DeviceError("this device was closed; open it again")
        return self._words

    def close(self) -> None:
        if self._words is not None:
            self._words = None
            self._mapping.close()
