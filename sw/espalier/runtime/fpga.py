"""What there is to know before anything is touched: is this the chip, is its FPGA configured, are
the bridges to it open, whose is the memory?

An access through a closed bridge ends the process with SIGBUS, one into an FPGA without a design
can stop the processor for good, and a window in the kernel's own memory destroys it. A kernel with
FPGA drivers says it in sysfs; where it has none (Debian's), the same registers that those drivers
read are read through /dev/mem. Source of addresses and bits: Linux' drivers/fpga/socfpga.c,
altera-hps2fpga.c, altera-fpga2sdram.c, and socfpga.dtsi.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError

OPERATING, ENABLED, CLOSED = "operating", "enabled", "disabled"
REGISTER_BRIDGE, MEMORY_BRIDGE = "lwhps2fpga", "fpga2sdram"
"""Names that Linux' drivers give the two bridges that we use."""
MANAGER_STATUS, MODE_MASK, USER_MODE = 0xFF70_6000, 7, 4
BRIDGE_RESETS, LIGHTWEIGHT_RESET = 0xFFD0_501C, 1 << 1
MEMORY_PORTS = 0xFFC2_5080
OUR_PORT = 1 << 8 | 3 << 4 | 3
"""Command port 0, write and read FIFOs 0 and 1; 1 is out of reset."""
UNKNOWN = "unknown"
CHIP = "altr,socfpga"
"""What the device tree of every board with this chip is compatible with."""


@dataclass(frozen=True)
class Finding:
    """`state` of one thing, `fine` or not (None: nobody knows), and what to do if not."""

    what: str
    state: str
    fine: bool | None
    advice: str


def findings(root: Path) -> Iterator[Finding]:
    """The board, the FPGA manager, both bridges; the board alone when it is another one."""
    names = _compatible(root)
    found = names[0] if names else "not one with a device tree"
    advice = "de1-soc is for programs on the board itself; elsewhere use rtl, or serial:PORT"
    yield Finding("board", found, CHIP in names, advice)
    if CHIP in names:
        yield from _fabric(root)


def _compatible(root: Path) -> list[str]:
    """The names in the device tree, the most special one first; empty where there is no tree."""
    try:
        return (root / "proc/device-tree/compatible").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def _fabric(root: Path) -> Iterator[Finding]:
    states = _by_kernel(root) or _by_registers(root)
    wanted = {"FPGA": OPERATING, REGISTER_BRIDGE: ENABLED, MEMORY_BRIDGE: ENABLED}
    advice = {
        "FPGA": "load the bitstream: `fpga load` in U-Boot, or load_bitstream.sh",
        REGISTER_BRIDGE: "`bridge enable` in U-Boot after `fpga load`",
        MEMORY_BRIDGE: "U-Boot must be built with CFG_HPS_SDR_CTRLCFG_FPGAPORTRST 0x3FFF",
    }
    for what, good in wanted.items():
        state = states.get(what, UNKNOWN)
        fine = None if state == UNKNOWN else state == good
        name = what if what == "FPGA" else f"bridge {what}"
        yield Finding(name, state, fine, f"{advice[what]} (docs/board.md)")


def require(root: Path) -> None:
    """Raises DeviceError for the first thing that is known not to be fine."""
    for finding in findings(root):
        if finding.fine is False:
            raise DeviceError(f"{finding.what} is {finding.state}: {finding.advice}")


def _by_kernel(root: Path) -> dict[str, str]:
    """States from sysfs; empty without an FPGA manager there."""
    files = sorted((root / "sys/class/fpga_manager").glob("fpga*/state"))
    if not files:
        return {}
    states = {"FPGA": files[0].read_text().strip()}
    for folder in (root / "sys/class/fpga_bridge").glob("br*"):
        states[(folder / "name").read_text().strip()] = (folder / "state").read_text().strip()
    return states


def _by_registers(root: Path) -> dict[str, str]:
    """States from the hardware itself; empty for users who may not read it."""
    try:
        descriptor = os.open(root / "dev/mem", os.O_RDONLY | os.O_SYNC | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        mode = _word(descriptor, MANAGER_STATUS) & MODE_MASK
        resets = _word(descriptor, BRIDGE_RESETS)
        ports = _word(descriptor, MEMORY_PORTS)
    except (OSError, ValueError):
        return {}
    finally:
        os.close(descriptor)
    return {
        "FPGA": OPERATING if mode == USER_MODE else f"not configured (mode {mode})",
        REGISTER_BRIDGE: CLOSED if resets & LIGHTWEIGHT_RESET else ENABLED,
        MEMORY_BRIDGE: ENABLED if ports & OUR_PORT == OUR_PORT else f"{CLOSED} ({ports:#x})",
    }


def _word(descriptor: int, address: int) -> int:
    page = address // mmap.PAGESIZE * mmap.PAGESIZE
    with (
        mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=page) as mapping,
        memoryview(mapping) as view,
        view.cast("I") as words,
    ):
        return words[(address - page) >> 2]


def system_memory(root: Path, base: int, size: int) -> str:
    """The first range of memory in use by the kernel that overlaps `size` bytes from `base`, as
    /proc/iomem (which shows addresses to root alone) names it; empty when there is none."""
    try:
        lines = (root / "proc/iomem").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        span, _, owner = line.strip().partition(" : ")
        first, last = (int(number, 16) for number in span.split("-"))
        if owner == "System RAM" and first < base + size and base <= last and last:
            return span
    return ""
