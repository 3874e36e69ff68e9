"""Sizes of one accelerator: the parameters that hardware, compiler and reference share."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields

SLOTS = 32
"""Accumulators in a lane: what one Cyclone V MLAB (32 x 20) holds."""
SCALARS = 32
"""Results of reductions; they live in the last chunks of the parameter memory."""
ACCUMULATOR_BITS = 20
"""Width of one accumulator; intermediate wrap is harmless, the final value is proven to fit."""
SUM_BITS = 27
"""Width of a drained sum over arrays, planes and time: one side of a 27x27 multiplier."""
VALUE_BITS = 16
"""Width of a vector element."""
COLUMN_BITS = 8
"""Width of a column input; values are in [-127, 127]."""
BEAT_BYTES = 16
"""Bytes of one DDR beat (the AXI data bus is 128 bits)."""
ITEM_BYTES = 8
"""Bytes of one loader item: every memory but weights and program is written one item a cycle."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one accelerator. Presets: `TINY`, `SMALL`, `DE1_SOC`, `ULX3S`.

    Parameters
    ----------
    arrays, lanes: number of arrays, and of multiply lanes in each (rows are dealt to lanes).
    vector_lanes: elements that the vector unit takes a cycle; a *chunk* is that many elements.
    group: columns in one feeder word; columns are dealt to arrays in groups.
    weight_depth: words of one entry a lane in each array's weight memory.
    column_depth: groups in each array's activation memory and last-sent memory.
    descriptor_depth: groups in each array's descriptor memory.
    vector_depth, parameter_depth, sum_depth: chunks in the vector, parameter and sum memories.
    tables: piecewise-linear functions held at once.
    program_depth: instructions held at once.
    reductions: whether VECTORs can be bounded by a register and reduce their results to scalars,
        which transformers need.

    Raises
    ------
    ValueError: when a size breaks a rule; the message names rule and value.
    """

    name: str
    arrays: int
    lanes: int
    vector_lanes: int
    group: int
    weight_depth: int
    column_depth: int
    descriptor_depth: int
    vector_depth: int
    parameter_depth: int
    sum_depth: int
    tables: int
    program_depth: int
    reductions: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "reductions"):
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
        self._require(self.lanes % 4 == 0, f"lanes must be a multiple of 4, not {self.lanes}")
        self._require(
            self.lanes % self.vector_lanes == 0,
            f"lanes must be a multiple of vector_lanes ({self.vector_lanes}), not {self.lanes}",
        )
        self._require(
            self.lanes // self.vector_lanes <= 4,
            f"lanes must be at most 4 x vector_lanes ({self.vector_lanes}), not {self.lanes}",
        )
        self._require(
            self.vector_lanes % 4 == 0,
            f"vector_lanes must be a multiple of 4, not {self.vector_lanes}",
        )
        self._require(self.group in (4, 8), f"group must be 4 or 8, not {self.group}")
        self._require(
            self.vector_lanes % self.group == 0 and self.vector_lanes // self.group <= self.arrays,
            f"vector_lanes must be 1..{self.arrays} groups of {self.group}, "
            f"not {self.vector_lanes}",
        )
        self._require(
            self.vector_lanes & (self.vector_lanes - 1) == 0,
            f"vector_lanes must be a power of two, not {self.vector_lanes}",
        )
        self._require(
            self.parameter_depth >= SCALARS,
            f"parameter_depth must be at least {SCALARS}, the scalars' chunks, "
            f"not {self.parameter_depth}",
        )
        self._require(self.tables <= 4, f"tables must be at most 4, not {self.tables}")
        limits = {
            "weight_depth": 1 << 16,
            "column_depth": 1 << 10,
            "descriptor_depth": 1 << 10,
            "vector_depth": 1 << 10,
            "parameter_depth": 1 << 10,
            "sum_depth": 1 << 10,
            "program_depth": 1 << 16,
        }
        for size, limit in limits.items():
            value = getattr(self, size)
            self._require(value <= limit, f"{size} must be at most {limit}, not {value}")

    @staticmethod
    def _require(holds: bool, message: str) -> None:
        if not holds:
            raise ValueError(message)

    @property
    def total_lanes(self) -> int:
        return self.arrays * self.lanes

    @property
    def tile_rows(self) -> int:
        """Rows (times digit planes) that fit into the slots at once."""
        return SLOTS * self.lanes

    @property
    def slot_chunks(self) -> int:
        """Chunks drained from one slot address."""
        return self.lanes // self.vector_lanes

    @property
    def tile_chunks(self) -> int:
        """Chunks in the slots at once; chunk c lies in slot c div slot_chunks, lanes from (c mod
        slot_chunks)·V."""
        return SLOTS * self.slot_chunks

    @property
    def chunk_groups(self) -> int:
        """Column groups in one chunk."""
        return self.vector_lanes // self.group

    @property
    def quads_per_beat(self) -> int:
        """Quads (4 entries of one word) in a DDR beat."""
        return min(3, self.lanes // 4)

    @property
    def first_scalar(self) -> int:
        """Chunk of scalar 0 in parameter memory; the other scalars follow."""
        return self.parameter_depth - SCALARS

    @property
    def identity(self) -> int:
        """32-bit hash of all sizes (not the name): the hardware id that a program is checked
        against. Reductions count where they are missing."""
        sizes = {key: value for key, value in asdict(self).items() if key != "name"}
        if self.reductions:
            del sizes["reductions"]
        return int.from_bytes(
            hashlib.sha256(repr(sorted(sizes.items())).encode()).digest()[:4], "little"
        )

    def chunks(self, elements: int) -> int:
        """Chunks that hold `elements` elements."""
        return -(-elements // self.vector_lanes)

    def groups_per_array(self, columns: int) -> int:
        """Groups of each array that hold `columns` columns."""
        return -(-columns // (self.group * self.arrays))


TINY = Config(
    name="TINY",
    arrays=2,
    lanes=4,
    vector_lanes=4,
    group=4,
    weight_depth=256,
    column_depth=64,
    descriptor_depth=128,
    vector_depth=128,
    parameter_depth=128,
    sum_depth=128,
    tables=2,
    program_depth=512,
)
SMALL = Config(
    name="SMALL",
    arrays=4,
    lanes=16,
    vector_lanes=8,
    group=8,
    weight_depth=1024,
    column_depth=256,
    descriptor_depth=256,
    vector_depth=512,
    parameter_depth=512,
    sum_depth=512,
    tables=2,
    program_depth=512,
)
DE1_SOC = Config(
    name="DE1_SOC",
    arrays=8,
    lanes=32,
    vector_lanes=16,
    group=8,
    weight_depth=768,
    column_depth=256,
    descriptor_depth=256,
    vector_depth=512,
    parameter_depth=256,
    sum_depth=256,
    tables=2,
    program_depth=512,
)
ULX3S = Config(
    name="ULX3S",
    arrays=4,
    lanes=32,
    vector_lanes=8,
    group=4,
    weight_depth=512,
    column_depth=512,
    descriptor_depth=512,
    vector_depth=512,
    parameter_depth=512,
    sum_depth=512,
    tables=2,
    program_depth=512,
    reductions=False,
)
"""128 lanes for an ECP5 with 208 block RAMs of 512 x 36: deeper memories would take from the window
in block RAM, which has to hold the whole program (docs/decisions/0004-sizes-of-ulx3s.md)."""
PRESETS = {config.name: config for config in (TINY, SMALL, DE1_SOC, ULX3S)}


def preset(name: str) -> Config:
    """The preset called `name`. Raises ValueError naming the choices."""
    if name not in PRESETS:
        raise ValueError(f"unknown config {name!r}; choose one of: {', '.join(PRESETS)}")
    return PRESETS[name]
