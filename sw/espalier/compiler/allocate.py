"""Where everything lies: on-chip memories by bump allocation, the image's data, row parameters,
tables and registers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import CapacityError
from ..parameters import Rows
from ..spec import numerics
from ..spec.config import BEAT_BYTES, Config
from ..spec.fields import Layout
from ..spec.isa import Function
from ..spec.memory import PARAMETER, TABLE_ENTRY, Memory, depth
from .emit import ZERO_REGISTER

SPARE_REGISTER = ZERO_REGISTER - 1
"""Holds an address within a step for the instruction that follows."""


@dataclass
class Space:
    """Addresses of one memory, given out in order. `unit` names an address in messages."""

    memory: str
    size: int
    unit: str
    config: str
    used: int = 0

    def fits(self, count: int) -> bool:
        return self.used + count <= self.size

    def take(self, count: int, what: str) -> int:
        """First of `count` addresses. Raises CapacityError when the memory is full."""
        if not self.fits(count):
            raise CapacityError(
                f"{what} needs {count} {self.unit} of the {self.memory} memory, of which "
                f"{self.size - self.used} of {self.size} are left on {self.config}; "
                "make the model smaller or choose a larger configuration"
            )
        self.used += count
        return self.used - count


@dataclass
class Registers:
    """Sequencer registers: some hold for the whole program, the rest is free in every stage."""

    used: int = 1
    """R0 is the number of steps."""

    @property
    def left(self) -> int:
        return SPARE_REGISTER - self.used

    def take(self, what: str) -> int:
        """The next register. Raises CapacityError when there is none."""
        if self.left == 0:
            raise CapacityError(
                f"{what} needs a sequencer register, all {SPARE_REGISTER} are taken; "
                "give the model fewer inputs and outputs"
            )
        self.used += 1
        return self.used - 1


@dataclass
class Image:
    """The image's data behind the program."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, data: bytes) -> int:
        """Offset of `data`, padded to beats."""
        offset = self.size
        data += bytes(-len(data) % BEAT_BYTES)
        self.parts.append(data)
        self.size += len(data)
        return offset


@dataclass(eq=False)
class Parameters:
    """Requantization of the rows of one vector, from chunk `address` of the parameter memory."""

    rows: Rows
    chunks: int
    address: int = -1

    def words(self, config: Config) -> np.ndarray:
        """PARAMETER words (uint64), padding rows with multiplier 0."""
        bias_mask = (1 << numerics.BIAS_BITS) - 1
        index = np.searchsorted(np.array(numerics.SHIFTS), self.rows.shift)
        fields = {
            "multiplier": self.rows.multiplier,
            "shift": index,
            "bias": self.rows.bias & bias_mask,
        }
        words = np.zeros(self.chunks * config.vector_lanes, np.uint64)
        for name, position in PARAMETER.offsets().items():
            words[: len(self.rows)] |= fields[name].astype(np.uint64) << np.uint64(position)
        return words


def constant_rows(scale: float, count: int) -> Rows:
    """`count` rows that multiply by `scale`."""
    multiplier, shift = numerics.row_scale(scale)
    full = np.ones(count, np.int64)
    return Rows(multiplier=full * multiplier, shift=full * shift, bias=full * 0)


def table_words(name: str) -> np.ndarray:
    """TABLE_ENTRY words of a named function."""
    entries = numerics.make_table(*numerics.FUNCTIONS[name])
    return pack_words(TABLE_ENTRY, [{"base": b, "slope": s} for b, s in entries])


def pack_words(layout: Layout, values: list[dict[str, int]]) -> np.ndarray:
    return np.array([layout.pack(v) for v in values], np.uint64)


class Chip:
    """The on-chip memories of one program, its tables, registers and data image."""

    def __init__(self, config: Config):
        self.config = config

        def space(memory: Memory, unit: str) -> Space:
            return Space(memory.name.lower(), depth(config, memory), unit, config.name)

        self.vector = space(Memory.VECTOR, "chunks")
        self.columns = Space("column", config.column_depth, "groups", config.name)
        self.last = Space("last-sent", config.column_depth, "groups", config.name)
        self.sums = space(Memory.SUMS, "chunks")
        self.registers = Registers()
        self.image = Image()
        self.tables: list[str] = []

    def table(self, name: str) -> Function:
        """The function that looks `name` up. Raises CapacityError when the tables are all taken."""
        if name not in self.tables:
            if len(self.tables) == self.config.tables:
                raise CapacityError(
                    f"{self.config.name} holds {self.config.tables} tables "
                    f"({', '.join(self.tables)}), "
                    f"there is none for {name}; use fewer kinds of functions"
                )
            self.tables.append(name)
        return Function(Function.TABLE0 + self.tables.index(name))
