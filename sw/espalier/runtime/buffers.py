"""Where inputs, outputs and scratch lie in the window: after the image, what is needed once first,
then the steps."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CapacityError
from ..program import Program
from ..spec.interface import STEPS_REGISTER, Port, Scratch

PAGE_BYTES = 4096
"""Buffers start on pages: no burst ever touches two of them."""


def align(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True)
class Buffers:
    """Window offset of every port, and the registers that tell the program.

    Members
    -------
    offsets: by port name.
    registers: what to write before a start: number of steps and all addresses.
    end: first byte behind the last buffer.
    """

    offsets: dict[str, int]
    registers: dict[int, int]
    end: int


def plan(program: Program, steps: int) -> Buffers:
    """Lay out the buffers of `steps` time steps. Ports without a time axis keep their place
    whatever `steps` is."""
    position = align(len(program.image))
    offsets: dict[str, int] = {}
    registers = {STEPS_REGISTER: steps}
    ports = (*program.inputs, *program.outputs)
    for port in sorted(ports, key=lambda port: port.time_axis is not None):
        count = 1 if port.time_axis is None else steps
        offsets[port.name] = position
        _point(registers, port, position, count)
        position = align(position + count * port.stride_bytes)
    for scratch in program.scratch:
        _point(registers, scratch, position, steps)
        position = align(position + steps * scratch.stride_bytes)
    return Buffers(offsets, registers, position)


def _point(registers: dict[int, int], buffer: Port | Scratch, position: int, count: int) -> None:
    registers[buffer.register] = position
    if buffer.reverse_register is not None:
        registers[buffer.reverse_register] = position + (count - 1) * buffer.stride_bytes


def most_steps(program: Program, window_bytes: int) -> int:
    """Time steps that fit the window at once. Raises CapacityError when not even one does."""
    low, high = 0, window_bytes
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if plan(program, middle).end <= window_bytes else (low, middle - 1)
        )
    if low == 0:
        raise CapacityError(
            f"one time step needs {plan(program, 1).end} bytes with the program's image of "
            f"{len(program.image)}, the window has {window_bytes}; open a larger one"
        )
    return low
