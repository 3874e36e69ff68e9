"""The kernel module u-dma-buf: one contiguous buffer as a file, cached, with explicit maintenance.

The FPGA-to-SDRAM port reaches the memory beside the processor's caches, so that what the host
wrote must be cleaned out of them before a run, and what the accelerator wrote must not be read
from a stale line afterwards. u-dma-buf does both on demand through sysfs files. Its driver calls
the kernel's DMA interface, barriers and the outer cache included: when a write of a sync file
returns, the memory is up to date. Source: u-dma-buf's Readme.md and u-dma-buf.c (Ichiro Kawazome).
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from ..errors import DeviceError
from .mapped import Buffer, map_device, open_device

CLASSES = ("sys/class/u-dma-buf", "sys/class/udmabuf")
"""Where its devices are listed, by versions since 2 and before."""
TO_DEVICE, FROM_DEVICE = 1, 2
LINE = 32
"""Bytes of a cache line of the Cortex-A9: what maintenance works on."""


def find(root: Path, name: str) -> Path | None:
    """The sysfs folder of the buffer called `name`, or None."""
    folders = (root / folder / name for folder in CLASSES)
    return next((folder for folder in folders if folder.is_dir()), None)


class CachedBuffer(Buffer):
    """A u-dma-buf device behind the processor's caches.

    `write` cleans the lines it wrote, `read` invalidates the lines it is about to read. The host
    never writes a line that the accelerator writes during a run, because buffers start on pages, so
    that no dirty line can fall onto results.

    Parameters
    ----------
    device: its file in /dev. folder: its folder in sysfs.
    size: bytes to use, None for all of them.
    """

    def __init__(self, device: Path, folder: Path, size: int | None = None):
        base, whole = _number(folder / "phys_addr", 16), _number(folder / "size", 10)
        if size is not None and size > whole:
            raise DeviceError(
                f"window_bytes must be at most the {whole} bytes of {device}, not {size}"
            )
        self._sync = [_open_sync(folder / f"sync_for_{side}") for side in ("device", "cpu")]
        descriptor = open_device(device, uncached=False)
        try:
            super().__init__(
                map_device(descriptor, size or whole, 0, str(device)), base, size or whole
            )
        finally:
            os.close(descriptor)

    def after_write(self, offset: int, size: int) -> None:
        self._maintain(0, TO_DEVICE, offset, size)

    def before_read(self, offset: int, size: int) -> None:
        self._maintain(1, FROM_DEVICE, offset, size)

    def _maintain(self, side: int, direction: int, offset: int, size: int) -> None:
        """One command: offset in the upper half, size, direction in bits 3..2, 1."""
        first = offset // LINE * LINE
        end = min(-(-(offset + size) // LINE) * LINE, self.size)
        command = first << 32 | (end - first) | direction << 2 | 1
        os.pwrite(self._sync[side], b"%#x" % command, 0)

    def close(self) -> None:
        super().close()
        while self._sync:
            os.close(self._sync.pop())


def _open_sync(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be written ({error.strerror}), which keeping the caches coherent "
            "needs: install the udev rule, or use sudo (docs/board.md)"
        ) from error


def _number(path: Path, base: int) -> int:
    try:
        return int(path.read_text(), base)
    except (OSError, ValueError) as error:
        raise DeviceError(f"{path} cannot be read as a number ({error})") from error


assert mmap.PAGESIZE % LINE == 0
