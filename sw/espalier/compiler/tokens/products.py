"""Weights of one pass: linear layers as products of row blocks, packed for every layer that runs
the pass's code."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...errors import CapacityError
from ...parameters import Matrix, Rows
from ...spec.config import SLOTS, Config
from ...spec.tiling import block_units
from ...tokens.graph import Linear
from ..allocate import Parameters
from ..bounds import check_sum, split
from ..packing import Packed, descriptor_bytes, descriptor_words, pack, weight_bytes


@dataclass(frozen=True, eq=False)
class Shape:
    """Where a tensor's features lie among its `elements` elements."""

    positions: np.ndarray
    elements: int

    def of(self, width: int) -> np.ndarray:
        """The positions of a layer's own number of features, which may differ where they lie in
        order."""
        return self.positions if len(self.positions) == width else np.arange(width)


def placed(operation: Linear, inputs: Shape, output: Shape) -> tuple[np.ndarray, Rows]:
    """The matrix [elements out, elements in] and its rows where the tensors have their features."""
    weight = np.zeros((output.elements, inputs.elements), np.int16)
    outer, inner = (
        shape.of(size)
        for shape, size in zip((output, inputs), operation.matrix.weight.shape, strict=True)
    )
    weight[np.ix_(outer, inner)] = operation.matrix.weight

    def spread(values: np.ndarray, fill: int = 0) -> np.ndarray:
        result = np.full(output.elements, fill, np.int64)
        result[outer] = values
        return result

    rows = operation.rows
    shift = spread(rows.shift, int(rows.shift[0]))
    return weight, Rows(multiplier=spread(rows.multiplier), shift=shift, bias=spread(rows.bias))


@dataclass(eq=False)
class RowBlock:
    """Rows first..end of one linear layer: one PRODUCT and its drains.

    `packed` is by layer and tile: packed[i][t] for tile t of layer i.
    """

    first: int
    end: int
    planes: int
    height: int
    slot: int
    packed: list[list[Packed]]
    descriptors: int = 0
    weights: tuple[int, int] = (0, 0)

    @property
    def slots(self) -> tuple[int, int]:
        return self.slot, self.slot + self.planes * self.height

    @property
    def groups(self) -> int:
        return self.packed[0][0].groups

    def words(self) -> int:
        """Words of the fullest array, about what a product of all columns takes in cycles."""
        return max(int(p.lengths.max()) for layer in self.packed for p in layer)


def pack_rows(
    name: str,
    weights: list[np.ndarray],
    bit_width: int,
    rows: tuple[int, int],
    tiles: int,
    slot: int,
    config: Config,
) -> RowBlock:
    """Pack rows first..end of every layer's matrix, and the same rows of all further tiles.

    Raises CapacityError when the accumulators could overflow.
    """
    first, end = rows
    planes, height = bit_width // 4, -(-(end - first) // config.lanes)
    groups = config.groups_per_array(weights[0].shape[1])
    packed = []
    for weight in weights:
        layer = []
        for tile in range(tiles):
            at = first + tile * (end - first)
            part = weight[at : at + end - first]
            check_sum(np.abs(part.astype(np.int64)).sum(1), name)
            matrix = Matrix(weight=part, bit_width=bit_width)
            one = pack(matrix, slot, height, groups, config)
            if len(split([one], False)) > 1:
                raise CapacityError(
                    f"{name}: a row's products over {weight.shape[1]} inputs could overflow the "
                    "accumulators; use 4 bits, a lower density or fewer inputs"
                )
            layer.append(one)
        packed.append(layer)
    return RowBlock(first, end, planes, height, slot, packed)


@dataclass(eq=False)
class PassData:
    """Everything that one pass loads before its tokens, by layer and tile."""

    config: Config
    layers: int
    tiles: int = 1
    blocks: list[RowBlock] = field(default_factory=list)
    parameters: list[list[list[Parameters]]] = field(default_factory=list)
    """[vector][layer][tile]"""
    constants: list[list[np.ndarray]] = field(default_factory=list)
    """[vector][layer], int16 of whole chunks; they come first in vector memory."""
    tables: list[tuple[str, list[list[tuple[int, int]]]]] = field(default_factory=list)
    """(name, by layer its entries)"""
    size: int = 1
    """Words that are loaded into every array, once placed."""
    base: int = 0
    """First of them in the weight memory."""

    def words(self) -> int:
        """Words that the fullest array needs."""
        totals = [
            sum((block.packed[i][t].lengths for block in self.blocks), np.zeros(1, np.int64)).max()
            for i in range(self.layers)
            for t in range(self.tiles)
        ]
        return int(max(totals, default=0)) if self.blocks else 0

    @property
    def groups(self) -> int:
        return sum(block.groups for block in self.blocks)

    @property
    def parameter_chunks(self) -> int:
        return sum(vector[0][0].chunks for vector in self.parameters)

    @property
    def constant_chunks(self) -> int:
        return sum(len(vector[0]) // self.config.vector_lanes for vector in self.constants)

    def place(self) -> None:
        """Give every block its descriptors and every vector of parameters its address."""
        groups, chunk, words = 0, 0, max(self.words(), 1)
        self.size = words
        for block in self.blocks:
            block.descriptors = groups
            groups += block.groups
        self.move(0)
        for vector in self.parameters:
            for layer in vector:
                for one in layer:
                    one.address = chunk
            chunk += vector[0][0].chunks

    def move(self, base: int) -> None:
        """Place the words from `base` on."""
        self.base = base
        for block in self.blocks:
            block.weights = (base, base + self.size)

    def weights(self, layer: int, tile: int, part: tuple[int, int]) -> bytes:
        """DDR form of the words at the addresses first..end: what all layers and tiles have in
        common is their size."""
        first, end = (address - self.base for address in part)
        words = [
            np.concatenate([b.packed[layer][tile].words[array] for b in self.blocks])[first:end]
            for array in range(self.config.arrays)
        ]
        return weight_bytes(words, end - first, self.config)

    def descriptors(self, layer: int, tile: int) -> bytes:
        starts, parts = np.full(self.config.arrays, self.base, np.int64), []
        for block in self.blocks:
            packed = block.packed[layer][tile]
            parts.append(descriptor_words(packed, starts))
            starts = starts + packed.lengths
        return descriptor_bytes(np.concatenate(parts, axis=1))


def block_rows(elements: int, planes: int, unit: int, config: Config) -> list[tuple[int, int]]:
    """Rows first..end of the blocks of a matrix, in whole units (`spec.tiling`).

    Raises CapacityError when a unit needs too many slots.
    """
    blocks = block_units(elements // unit, planes, unit, config)
    if not blocks:
        raise CapacityError(
            f"rows come in units of {unit}, which the {SLOTS} slots of {config.name} cannot hold; "
            "use smaller heads or a larger configuration"
        )
    ends = [unit * sum(blocks[: i + 1]) for i in range(len(blocks))]
    return list(zip([0, *ends[:-1]], ends, strict=True))
