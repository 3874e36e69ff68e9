"""What the kernel says before anything is touched: is the FPGA configured, are the bridges to it
open, whose is the memory?

An access through a closed bridge ends the process with SIGBUS, one into an FPGA without a design
can stop the processor for good, and a window in the kernel's own memory destroys it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError

OPERATING = "operating"
ENABLED = "enabled"
REGISTER_BRIDGE, MEMORY_BRIDGE = "lwhps2fpga", "fpga2sdram"
"""Names that Linux' drivers give the two bridges that we use (altera-hps2fpga.c,
altera-fpga2sdram.c)."""


@dataclass(frozen=True)
class Finding:
    """`state` of one thing, `fine` or not, and what to do if not. `present` is False where the
    kernel has no driver that would know."""

    what: str
    state: str
    fine: bool
    advice: str
    present: bool = True


def findings(root: Path) -> Iterator[Finding]:
    """The FPGA manager, then both bridges."""
    yield _manager(root)
    states = _bridges(root)
    for name in (REGISTER_BRIDGE, MEMORY_BRIDGE):
        state = states.get(name)
        yield Finding(
            f"bridge {name}",
            state or "unknown to the kernel",
            state == ENABLED,
            f"enable the bridge: load the bitstream with load_bitstream.sh, or `bridge enable` "
            f"in U-Boot; {name} must be in the device tree with status okay",
            state is not None,
        )


def require(root: Path) -> None:
    """Raises DeviceError for the first thing that is known not to be fine."""
    for finding in findings(root):
        if finding.present and not finding.fine:
            raise DeviceError(f"{finding.what} is {finding.state}: {finding.advice}")


def _manager(root: Path) -> Finding:
    files = sorted((root / "sys/class/fpga_manager").glob("fpga*/state"))
    state = files[0].read_text().strip() if files else "unknown to the kernel"
    return Finding(
        "FPGA",
        state,
        state == OPERATING,
        "load the bitstream: load_bitstream.sh, or `fpga load` in U-Boot (docs/board.md)",
        bool(files),
    )


def _bridges(root: Path) -> dict[str, str]:
    states = {}
    for folder in (root / "sys/class/fpga_bridge").glob("br*"):
        name = (folder / "name").read_text().strip()
        states[name] = (folder / "state").read_text().strip()
    return states


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
