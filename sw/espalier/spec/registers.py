"""The register map of the AXI4-Lite slave: 32-bit registers, byte addresses.

Whole words only: a write with fewer than four byte strobes is answered with SLVERR and has no
effect. Everything else is answered with OKAY: addresses without a register read as 0 and take
writes without effect, `rw` registers keep their value when written while the machine is busy or
draining, `ro` registers keep theirs always. The interrupt line is 1 while STATUS has DONE or FAULT.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAGIC = 0x4C505345
"""'ESPL' in memory order."""
SIZE_BYTES = 256


@dataclass(frozen=True)
class Register:
    address: int
    access: str
    """`ro`: written by the hardware; `rw`: by the host while the machine is idle; `wo`: a
    command."""
    meaning: str


class Control(IntFlag):
    """Commands; several may be written at once."""

    START = 1
    """Run from ENTRY. Ignored unless idle. After power-up or a fault the slots are cleared first.
    """
    LOAD_PROGRAM = 2
    """Before starting, load PROGRAM_LENGTH instructions from window offset 0 (with START)."""
    ABORT = 4
    """Stop a run: no further instruction or burst is issued, bursts in flight end, then fault
    ABORTED."""
    CLEAR_FAULT = 8
    """Leave the fault state; possible once no burst is in flight."""


class Status(IntFlag):
    """State of the machine, in STATUS; 0 is idle."""

    BUSY = 1
    """From START to DONE or FAULT. Counters are final when it falls."""
    DONE = 2
    """The last run ended with HALT; cleared by START."""
    FAULT = 4
    """The machine stopped on a fault; cleared by CLEAR_FAULT."""
    DRAINING = 8
    """Bursts are still in flight after a fault."""


class Fault(IntEnum):
    """Cause of a stop, in FAULT."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    """Unknown opcode, END without LOOP, too many nested loops, program counter beyond
    PROGRAM_LENGTH, LOAD, PRODUCT or VECTOR of nothing, a program longer than its memory."""
    OUTSIDE_WINDOW = 2
    """A burst would leave the window, or its address is no multiple of 16: nothing of it was
    issued."""
    BUS_ERROR = 3
    """The memory answered a burst with an error."""
    WATCHDOG = 4
    """No instruction completed and no beat moved for WATCHDOG cycles."""
    ABORTED = 5


COUNTERS = {
    "cycles": "clock cycles from START to HALT",
    "instructions": "instructions executed, SET, LOOP, END and HALT included",
    "product_cycles": "cycles in which a product runs",
    "words": "weight words multiplied, one per array and cycle (lane-cycles = words x lanes)",
    "visits": "column visits: nonzero activations, or deltas above the threshold"
    " (two visits for |delta| > 127)",
    "skipped": "columns not visited, padding included",
    "chunks": "chunks that the vector unit took in",
    "read_beats": "DDR beats read (16 bytes each)",
    "write_beats": "DDR beats written (16 bytes each)",
}
"""64-bit event counters, cleared by START; `cycles` and `product_cycles` are the hardware's alone,
the others also the reference's."""


def _map() -> dict[str, Register]:
    registers = {
        "MAGIC": Register(0x00, "ro", f"{MAGIC:#010x}"),
        "VERSION": Register(0x04, "ro", "version of the contract (spec.isa.VERSION)"),
        "IDENTITY": Register(0x08, "ro", "hash of the sizes (Config.identity)"),
        "CONTROL": Register(0x0C, "wo", "commands (Control)"),
        "STATUS": Register(0x10, "ro", "state (Status)"),
        "FAULT": Register(0x14, "ro", "cause of the last stop (Fault)"),
        "FAULT_PC": Register(
            0x18,
            "ro",
            "address of the illegal instruction, else of the one last issued before the fault",
        ),
        "FAULT_ADDRESS": Register(0x1C, "ro", "window offset of the burst at fault"),
        "WINDOW_BASE": Register(0x20, "rw", "bus address of the window; the low 12 bits stay 0"),
        "WINDOW_SIZE": Register(0x24, "rw", "bytes of the window; 0 closes it"),
        "ENTRY": Register(0x28, "rw", "address of the first instruction"),
        "PROGRAM_LENGTH": Register(0x2C, "rw", "instructions of the program"),
        "WATCHDOG": Register(0x30, "rw", "cycles without progress that make a fault; 0 = never"),
    }
    for index in range(16):
        registers[f"R{index}"] = Register(
            0x40 + 4 * index,
            "rw",
            f"sequencer register {index}: set before START, changed by SET and LOAD",
        )
    for index, (name, meaning) in enumerate(COUNTERS.items()):
        address = 0x80 + 8 * index
        registers[f"{name.upper()}_LOW"] = Register(address, "ro", f"{meaning}, bits 31..0")
        registers[f"{name.upper()}_HIGH"] = Register(address + 4, "ro", f"{meaning}, bits 63..32")
    return registers


REGISTERS = _map()


def address(name: str) -> int:
    """Byte address of the register called `name`. Raises ValueError naming the choices."""
    if name not in REGISTERS:
        raise ValueError(f"unknown register {name!r}; one of: {', '.join(REGISTERS)}")
    return REGISTERS[name].address
