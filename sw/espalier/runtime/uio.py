"""Linux' userspace I/O: a device's registers and memory as maps of one file, its interrupt as
reads.

The kernel masks the interrupt when it fires; writing 1 to the file unmasks it. Ours is a level, 1
while STATUS has DONE or FAULT, so that unmasking it after the end fires at once: no end is ever
missed. Source: Linux, Documentation/driver-api/uio-howto.rst, drivers/uio/uio_pdrv_genirq.c.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError

CLASS = "sys/class/uio"


@dataclass(frozen=True)
class Map:
    """One memory of a device: bus address and bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class Uio:
    """A UIO device: its file, and its memories in the device tree's order.

    Map n is mapped at offset n pages of the file, whatever its address is.
    """

    name: str
    device: Path
    maps: tuple[Map, ...]

    @staticmethod
    def offset(index: int) -> int:
        return index * mmap.PAGESIZE


def names(root: Path) -> dict[str, Path]:
    """The sysfs folders of all devices, by name."""
    folders = sorted((root / CLASS).glob("uio*"))
    return {(folder / "name").read_text().strip(): folder for folder in folders}


def find(root: Path, name: str) -> Uio:
    """The device called `name`. Raises DeviceError listing those that there are."""
    found = names(root)
    if name not in found:
        there = ", ".join(found) or "none"
        raise DeviceError(
            f"there is no UIO device {name!r} (there are: {there}): apply the device tree overlay "
            "and load uio_pdrv_genirq with of_id=generic-uio (docs/board.md)"
        )
    folder = found[name]
    maps = [_map(path) for path in sorted((folder / "maps").glob("map*"))]
    return Uio(name, root / "dev" / folder.name, tuple(maps))


def _map(folder: Path) -> Map:
    address, size = (int((folder / name).read_text(), 0) for name in ("addr", "size"))
    return Map(address, size)


class Interrupt:
    """The interrupt of an open UIO file.

    Members
    -------
    count: how often `wait` returned because it fired.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.count = 0

    def wait(self, timeout_s: float) -> None:
        """Unmask it, and return when it fires or after `timeout_s`."""
        os.write(self._descriptor, struct.pack("=i", 1))
        ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
        if ready:
            os.read(self._descriptor, 4)
            self.count += 1
