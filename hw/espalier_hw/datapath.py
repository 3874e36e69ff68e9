"""Registers of data paths: without reset, because validity travels beside the data.

A reset that only control registers have is a net of hundreds of loads instead of thousands.
"""

from __future__ import annotations

from amaranth.hdl import *

KEEP = {"keep": 1}
"""Attribute of registers that hold the same as others: merged into one, they would drive all that
the others drive."""


def data_register(shape: object, name: str) -> Signal:
    """A register that a reset leaves as it is."""
    return Signal(shape, name=name, reset_less=True)


def data_output(m: Module, port: Value, name: str) -> Signal:
    """A data register that drives `port`, of its shape; not within a condition of `m`."""
    register = data_register(port.shape(), name)
    m.d.comb += Value.cast(port).eq(Value.cast(register))
    return register
