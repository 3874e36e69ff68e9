"""Machine vectors: what lies in vector memory, in columns and in DDR, and how views of the graph
map onto them.

A vector of n elements takes ceil(n / V) chunks; element i is column i of its column regions, so
nothing is ever moved within a vector. Slices and concatenations become `Piece`s: products take
permuted weights, everything elementwise runs on the whole vector and the result keeps the mapping.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ..errors import UnsupportedModelError
from ..spec.config import Config
from .ir import Value, View

PARTS = 3
"""Parts of columns from DDR, each of two words at least: a wait can tell three products apart."""


@dataclass(eq=False)
class Region:
    """Words of activation memory (in every array) with the columns of one vector.

    `cuts` are the words at which columns from DDR are cut into parts: the first one is loaded for
    the next step while the others are still multiplied.
    """

    words: int
    address: int = -1
    cuts: tuple[int, ...] = ()

    def parts(self) -> list[tuple[int, int]]:
        """(first word, end) of every part."""
        edges = (0, *self.cuts, self.words)
        return list(pairwise(edges))


@dataclass(eq=False)
class Buffer:
    """A buffer in DDR: a port, or the program's scratch (`own`).

    `register` holds the address of the first step, `reverse` that of the last.
    """

    name: str
    register: int
    per_step: bool
    size_bytes: int = 0
    reverse: int | None = None
    own: bool = False

    @property
    def stride_bytes(self) -> int:
        return -(-self.size_bytes // 16) * 16

    def add(self, size_bytes: int) -> int:
        """Offset of a new section, from a beat."""
        self.size_bytes = self.stride_bytes
        self.size_bytes += size_bytes
        return self.size_bytes - size_bytes


@dataclass(eq=False)
class Section:
    """One vector's place in a buffer."""

    buffer: Buffer
    offset: int

    @property
    def name(self) -> str:
        """What it is called where the program both writes and reads it."""
        return f"{self.buffer.name}+{self.offset}" if self.buffer.own else ""


@dataclass(eq=False)
class Vector:
    """Elements that live together.

    Parameters
    ----------
    scale: real value of one unit of its 16-bit elements.
    native: its columns arrive as they are (a column input), it has no 16-bit elements.
    columns: by element scale, the regions that hold its upper bytes.
    per_step: whether it is made every time step.
    in_memory: whether it has a place (`address`) in vector memory.
    stores: where its elements go in DDR when they are made.
    scratch: its section of the scratch, when a later stage reads it.
    """

    name: str
    elements: int
    scale: float
    native: bool = False
    per_step: bool = True
    columns: dict[float, Region] = field(default_factory=dict)
    in_memory: bool = False
    address: int = -1
    stores: list[Section] = field(default_factory=list)
    scratch: Section | None = None

    def region(self, scale: float, config: Config) -> Region:
        """The region with its columns in units of 256·scale, made when it is asked for first."""
        if self.native and scale != self.scale:
            raise UnsupportedModelError(
                f"input {self.name!r} arrives as columns of scale {256 * self.scale:g} and cannot "
                f"be taken in units of {256 * scale:g}; calibrate its users together"
            )
        if scale not in self.columns:
            groups = config.chunks(self.elements) * config.chunk_groups
            words = -(-groups // config.arrays)
            parts = min(PARTS, config.groups_per_array(self.elements) // 2) if self.native else 1
            cuts = tuple(-(-words * i // parts) for i in range(1, parts))
            self.columns[scale] = Region(words, cuts=cuts)
        return self.columns[scale]

    def need_memory(self) -> None:
        if self.native:
            raise UnsupportedModelError(
                f"input {self.name!r} arrives as columns and can only be multiplied by weights; "
                "use its values in a linear layer or GRU"
            )
        self.in_memory = True


@dataclass(frozen=True, eq=False)
class Piece:
    """The features of a view that one vector holds: feature features[i] is element indices[i].

    `final` says that the vector's content after the last step is meant.
    """

    vector: Vector
    features: np.ndarray
    indices: np.ndarray
    final: bool


@dataclass(frozen=True, eq=False)
class Mapping:
    """The vectors and elements of a value, element by element; `final` for each vector."""

    vectors: tuple[Vector, ...]
    owners: np.ndarray
    indices: np.ndarray
    final: tuple[bool, ...]

    @staticmethod
    def of(vector: Vector, final: bool = False) -> Mapping:
        n = vector.elements
        return Mapping((vector,), np.zeros(n, np.int64), np.arange(n), (final,))

    @staticmethod
    def join(mappings: list[Mapping]) -> Mapping:
        """One mapping behind the other."""
        first = np.cumsum([0, *(len(m.vectors) for m in mappings)])
        return Mapping(
            tuple(v for m in mappings for v in m.vectors),
            np.concatenate([m.owners + at for m, at in zip(mappings, first[:-1], strict=True)]),
            np.concatenate([m.indices for m in mappings]),
            tuple(f for m in mappings for f in m.final),
        )

    def take(self, elements: np.ndarray) -> Mapping:
        """Some elements, on the vectors that hold them."""
        used, owners = np.unique(self.owners[elements], return_inverse=True)
        return Mapping(
            tuple(self.vectors[i] for i in used),
            owners,
            self.indices[elements],
            tuple(self.final[i] for i in used),
        )

    def replace(self, vectors: list[Vector], final: bool | None = None) -> Mapping:
        """The same elements of other vectors."""
        ends = self.final if final is None else (final,) * len(vectors)
        return Mapping(tuple(vectors), self.owners, self.indices, ends)

    def pieces(self) -> list[Piece]:
        """One piece a vector and end; an element that a view repeats goes to a further piece."""
        found: dict[tuple[Vector, bool, int], list[tuple[int, int]]] = {}
        seen: dict[tuple[Vector, bool, int], int] = {}
        for feature, (owner, index) in enumerate(zip(self.owners, self.indices, strict=True)):
            vector, final = self.vectors[owner], self.final[owner]
            repeat = seen.get((vector, final, int(index)), 0)
            seen[vector, final, int(index)] = repeat + 1
            found.setdefault((vector, final, repeat), []).append((feature, int(index)))
        return [
            Piece(vector, np.array([f for f, _ in pairs]), np.array([i for _, i in pairs]), final)
            for (vector, final, _), pairs in found.items()
        ]


def view_mapping(view: View, values: dict[Value, Mapping]) -> Mapping:
    """The mapping of a view's features."""
    joined = Mapping.join([values[value] for value in view.values])
    starts = np.cumsum([0, *(value.elements for value in view.values)])[:-1]
    return joined.take(starts[view.owners] + view.indices)
