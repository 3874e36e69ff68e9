"""What lowering one operation means: a `Unit` plans its products and memory, then writes its
instructions.

Units are machine operations in order: inputs, linear layers, one GRU layer in one direction,
elementwise passes. A `Site` is where they are written: one step of a loop over the time steps, or a
place outside of loops, with the registers that hold the addresses of the current step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

from ..parameters import Rows
from ..spec.config import Config
from ..spec.isa import Scale, Source, Store
from .allocate import SPARE_REGISTER, Chip, Parameters, constant_rows
from .emit import Assembly
from .products import Product, SlotRing, Task
from .schedule import Schedule
from .vectors import Buffer, Piece, Section, Vector


class Cursors:
    """Registers with the DDR addresses of the current step, by buffer."""

    def __init__(self, assembly: Assembly, *, reverse: bool = False):
        self.assembly, self.reverse = assembly, reverse
        self.registers: dict[Buffer, int] = {}
        self.sums = -1
        """Holds the address of a tile's sums (`lower_stream`)."""

    def start(self, buffer: Buffer, register: int) -> None:
        """Let `register` point to the first step of the pass."""
        base = buffer.reverse if self.reverse else buffer.register
        self.registers[buffer] = register
        if register != base:
            assert base is not None
            self.assembly.set(register, 0, base)

    def stride(self, buffer: Buffer) -> int:
        if not buffer.per_step:
            return 0
        return -buffer.stride_bytes if self.reverse else buffer.stride_bytes

    def advance(self, buffer: Buffer) -> None:
        register = self.registers[buffer]
        self.assembly.set(register, self.stride(buffer), register)

    def address(self, section: Section) -> int:
        """A register with the section's address in this step."""
        register = self.registers.get(section.buffer, section.buffer.register)
        if section.offset == 0:
            return register
        self.assembly.set(SPARE_REGISTER, section.offset, register)
        return SPARE_REGISTER


@dataclass
class Site:
    """Where a unit writes its instructions."""

    assembly: Assembly
    schedule: Schedule
    cursors: Cursors
    chip: Chip
    temporary: int
    """First chunk of the vector memory that units use within themselves."""

    @property
    def config(self) -> Config:
        return self.assembly.config


@dataclass(eq=False)
class Unit(ABC):
    """One machine operation.

    `inputs` are the pieces that it works on, `output` is what it makes; `per_step` says that it
    runs every time step, `reverse` that it runs from the last step to the first, `streamed` that
    its weights pass through the chip in tiles.
    """

    name: str
    inputs: list[Piece]
    output: Vector
    per_step: bool
    reverse: bool = field(default=False, kw_only=True)
    streamed: bool = field(default=False, kw_only=True)
    tasks: list[Task] = field(default_factory=list, init=False)
    temporary_chunks: int = field(default=0, init=False)
    temporary_sums: int = field(default=0, init=False)
    requantized: list[Parameters] = field(default_factory=list, init=False)
    """Row parameters that it uses; they are placed with the weights."""

    @property
    def products(self) -> list[Product]:
        return [product for task in self.tasks for product in task.products]

    def rows(self, rows: Rows, config: Config) -> Parameters:
        """Room for row parameters."""
        self.requantized.append(Parameters(rows, config.chunks(len(rows))))
        return self.requantized[-1]

    def rescale(self, scale: float, elements: int, config: Config) -> Parameters:
        """Room for parameters that multiply `elements` elements by `scale`."""
        return self.rows(constant_rows(scale, elements), config)

    def least_words(self, config: Config) -> int:
        """Weight words that it takes in each array at least."""
        return 0

    def place_sums(self, first: int) -> None:
        """Where the sums that it needs within a step lie: by default those of all its tasks."""
        for task in self.tasks:
            task.sums = first

    def sections(self) -> list[Section]:
        """Places in DDR that one step loads from or stores to."""
        return self.output.stores

    def substitute(self, old: Vector, new: Vector) -> None:
        """Take `new` where `old` was an input."""
        self.inputs = [
            replace(piece, vector=new) if piece.vector is old else piece for piece in self.inputs
        ]

    @abstractmethod
    def demand(self, config: Config) -> None:
        """Ask the input vectors for what this unit takes of them: columns, or a place in vector
        memory."""

    @abstractmethod
    def plan(self, chip: Chip, ring: SlotRing) -> None:
        """Make the products; ask for parameters, tables and sums. All units have demanded then."""

    @abstractmethod
    def write(self, site: Site) -> None:
        """The instructions of one step (or of the one time that it runs)."""


@dataclass(eq=False)
class Sinks:
    """Everything that a finished vector goes to besides the operation's own use of it."""

    vector: Vector
    rescaled: dict[float, Parameters]

    @staticmethod
    def plan(unit: Unit, config: Config, *, blocks: int = 1) -> Sinks:
        """Decide whether a unit's output needs a place in vector memory, and ask for changes of
        scale."""
        vector = unit.output
        others = [scale for scale in vector.columns if scale != vector.scale]
        if not vector.native and (others or blocks > 1 or len(vector.stores) > 1):
            vector.need_memory()
        return Sinks(
            vector, {s: unit.rescale(vector.scale / s, vector.elements, config) for s in others}
        )

    def fused(self, site: Site, *, store: bool = True) -> dict[str, Any]:
        """Fields by which the VECTOR that makes the whole vector writes memory, columns and DDR."""
        vector = self.vector
        fields: dict[str, int] = {}
        if vector.in_memory:
            fields |= {"write_vector": 1, "vector_address": vector.address}
        if vector.scale in vector.columns:
            address = vector.columns[vector.scale].address
            fields |= {"write_columns": 1, "column_address": address}
        if store and vector.stores:
            register = site.cursors.address(vector.stores[0])
            fields |= {"store": Store.VALUES, "register": register}
        return fields

    def section(self) -> str:
        return self.vector.stores[0].name if self.vector.stores else ""

    def copies(self, site: Site, *, columns_left: bool = True, stores_left: bool = False) -> None:
        """VECTORs from vector memory to what the fused one did not reach: other scales, further
        stores, and with `columns_left` and `stores_left` also its own columns and first store."""
        vector = self.vector
        operand: dict[str, Any] = {
            "count": site.config.chunks(vector.elements),
            "source": Source.OPERAND,
            "operand0": vector.address,
        }
        stores = vector.stores if stores_left else vector.stores[1:]
        for scale, region in vector.columns.items():
            columns: dict[str, Any] = {"write_columns": 1, "column_address": region.address}
            if scale != vector.scale:
                rows = self.rescaled[scale]
                site.assembly.vector(
                    **operand, **columns, scale=Scale.ROWS, parameters=rows.address
                )
            elif columns_left:
                site.assembly.vector(**operand, **columns)
        for section in stores:
            register = site.cursors.address(section)
            store = {**operand, "store": Store.VALUES, "register": register}
            site.assembly.vector(**store, section=section.name)
