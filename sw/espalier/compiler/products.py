"""Products before they are instructions: which weights meet which columns, in which slots, drained
when.

A `Task` is a block of rows (a gate, or a part of one) that accumulates in its own slots over one or
several products and is drained once at the end, or several times where the accumulators would not
hold the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..parameters import Matrix
from ..spec.config import SLOTS, Config
from ..spec.isa import Mode, Source, Sums
from . import bounds
from .packing import Packed, pack, plane_height
from .vectors import Piece, Region, Vector


@dataclass(eq=False)
class Feed:
    """Columns on their way into products.

    `last` is the region of last-sent values where differences are taken; `features` of a matrix are
    its elements `indices`.
    """

    vector: Vector
    region: Region
    features: np.ndarray
    indices: np.ndarray
    last: Region | None = None
    threshold: int = 0

    @staticmethod
    def of(piece: Piece, scale: float, config: Config) -> Feed:
        """A feed of plain columns in units of 256·scale."""
        region = piece.vector.region(scale, config)
        return Feed(piece.vector, region, piece.features, piece.indices)

    @staticmethod
    def whole(vector: Vector, scale: float, config: Config) -> Feed:
        """A feed of all elements in their order."""
        every = np.arange(vector.elements)
        return Feed(vector, vector.region(scale, config), every, every)

    def weights(self, matrix: Matrix, rows: slice) -> Matrix:
        """The matrix's rows with its columns where this feed's vector has them."""
        weight = np.zeros((rows.stop - rows.start, int(self.indices.max()) + 1), np.int16)
        weight[:, self.indices] = matrix.weight[rows, self.features]
        return Matrix(weight=weight, bit_width=matrix.bit_width)

    def groups(self, config: Config) -> int:
        """Groups of each array that hold the columns in use."""
        return config.groups_per_array(int(self.indices.max()) + 1)


@dataclass(eq=False)
class Product:
    """One PRODUCT: `packed` weights over the groups of `feed` from `first_group`; the rest is known
    once it is placed."""

    feed: Feed
    packed: Packed
    first_group: int
    mode: Mode
    descriptors: int = -1
    weights: tuple[int, int] = (0, 0)


@dataclass(eq=False)
class Task:
    """Rows that accumulate together, in segments with a drain after each.

    `sums` is where they go in sum memory (None: nowhere). It may hold a part of the result already:
    a `running` sum of differences, or sums `loaded` for this step.
    """

    name: str
    slots: tuple[int, int]
    rows: int
    planes: int
    plane_slots: int
    segments: list[list[Product]]
    sums: int | None = None
    running: bool = False
    loaded: bool = False

    @property
    def products(self) -> list[Product]:
        return [product for segment in self.segments for product in segment]

    def drain(self, config: Config) -> dict[str, Any]:
        """Fields of the VECTOR that drains the task's slots."""
        return {
            "count": config.chunks(self.rows),
            "source": Source.DRAIN_PLANES if self.planes == 2 else Source.DRAIN,
            "drain": self.slots[0] * config.slot_chunks,
            "plane_stride": (self.planes - 1) * self.plane_slots * config.slot_chunks,
        }

    def sum_fields(self, segment: int) -> dict[str, Any]:
        """The sum memory's part in the drain after a segment."""
        last = segment == len(self.segments) - 1
        if self.running:
            use = Sums.ACCUMULATE
        elif self.loaded:
            use = Sums.ADD if last else Sums.ACCUMULATE
        elif len(self.segments) == 1:
            return {}
        else:
            use = Sums.ADD if last else Sums.ACCUMULATE if segment else Sums.WRITE
        assert self.sums is not None
        return {"sums": use, "sum_address": self.sums}

    def words(self) -> int:
        """Cycles that its products take at least: words of the fullest array."""
        return sum(int(product.packed.lengths.max()) for product in self.products)


@dataclass
class SlotRing:
    """Slots in turn, so that a task accumulates while the one before it is drained."""

    position: int = 0

    def take(self, count: int) -> int:
        if self.position + count > SLOTS:
            self.position = 0
        self.position += count
        return self.position - count


def plan_task(
    name: str,
    parts: list[tuple[Feed, Matrix]],
    rows: slice,
    ring: SlotRing,
    config: Config,
    height: int = 0,
    level: bool = False,
    cut: bool = True,
) -> Task:
    """The products of `rows` of every part's matrix, in its own slots, split where the accumulators
    ask for it.

    All parts add to the same slots, so the joined sum is that of all digit planes; plane p of a
    part lies at plane p of the task. `height` is the slots of a plane where they are more than the
    rows need, `level` as in `pack`; `cut` cuts products where their columns are loaded in parts.
    """
    count = rows.stop - rows.start
    planes = max(matrix.planes for _, matrix in parts)
    height = height or plane_height(count, config)
    first = ring.take(height * planes)
    bounds.check_sum(sum(np.abs(m.weight[rows].astype(np.int64)).sum(1) for _, m in parts), name)
    packed = [
        pack(feed.weights(matrix, rows), first, height, feed.groups(config), config, level)
        for feed, matrix in parts
    ]
    delta = any(feed.last is not None for feed, _ in parts)
    segments = [
        [product for n, p, group in segment for product in _products(parts[n][0], p, group, cut)]
        for segment in bounds.split(packed, delta)
    ]
    return Task(name, (first, first + height * planes), count, planes, height, segments)


def _products(feed: Feed, packed: Packed, group: int, cut: bool) -> list[Product]:
    """The product, or one for each part of a region that is loaded in parts."""
    mode, end = Mode.DELTA if feed.last else Mode.PLAIN, group + packed.groups
    inside = [at for at in feed.region.cuts if group < at < end] if cut else []
    edges = [group, *inside, end]
    return [Product(feed, packed.part(a - group, b - group), a, mode) for a, b in pairwise(edges)]


def commit_last(tasks: list[Task]) -> None:
    """Of all tasks that visit a feed's columns in a step, the last one makes them the last-sent
    values."""
    last = {product.feed: task for task in tasks for product in task.products if product.feed.last}
    for feed, task in last.items():
        for product in task.products:
            if product.feed is feed:
                product.mode = Mode.COMMIT


def row_blocks(rows: int, planes: int, slots: int, config: Config) -> list[slice]:
    """Blocks of rows that take at most `slots` slots each, as equal as whole slots allow."""
    count = -(-rows // (slots // planes * config.lanes))
    size = -(-rows // (count * config.lanes)) * config.lanes
    return [slice(at, min(at + size, rows)) for at in range(0, rows, size)]


def best_blocks(
    rows: int, planes: int, plan: Callable[[list[slice]], list[Task]], drains: int, config: Config
) -> tuple[list[slice], list[Task]]:
    """The row blocks that take fewer cycles, with their tasks: half of the slots each, or all of
    them.

    Half of the slots lets a block be drained while the next one accumulates; whole blocks save the
    padding that columns with few entries have in every block. `drains` is the number of drains of
    all rows that half of the slots hide.
    """
    halves = row_blocks(rows, planes, SLOTS // 2, config)
    whole = row_blocks(rows, planes, SLOTS, config)
    tasks = plan(halves)
    if len(whole) == len(halves):
        return halves, tasks
    other = plan(whole)
    exposed = drains * config.chunks(rows)
    if sum(t.words() for t in other) + exposed < sum(t.words() for t in tasks):
        return whole, other
    return halves, tasks
