"""What a pruned matrix takes in each storage format, and from which density on that is less.

All formats store the same kept weights of `weight_bits`; they differ in what says where these are.
`traffic` is what one product with a vector has to read: formats in rows need all of themselves,
formats in columns only the columns whose input is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from ..spec.config import BEAT_BYTES, DE1_SOC, Config
from ..spec.memory import ENTRY
from .report import stored_entries

DESCRIPTOR_BITS = 64
"""Of our format: base and counts of a group of columns."""
FORMATS = "dense", "COO", "CSR", "bitmap", "k-of-n", "espalier"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bits of one matrix in one format.

    bits: at rest, everything included.
    traffic_bits: read for one product when a share of the columns has an input.
    """

    format: str
    bits: int
    traffic_bits: float

    @property
    def bytes(self) -> int:
        return -(-self.bits // 8)


def footprints(
    mask: Tensor,
    weight_bits: int = 4,
    *,
    config: Config = DE1_SOC,
    blocks: int = 1,
    nonzero: float = 1.0,
    n: int = 4,
) -> list[Footprint]:
    """A pruned matrix in every format.

    Arguments
    ---------
    mask: kept entries (bool [M, N]); blocks: patterns in its rows (GRU 3).
    nonzero: share 0..1 of the columns with an input that is not zero.
    n: group of k-of-n; every group takes the slots of the fullest one.
    """
    if mask.dim() != 2 or not mask.numel():
        raise InputError(f"mask must be a matrix, not of shape {tuple(mask.shape)}")
    rows, columns = mask.shape
    kept = int(mask.sum())
    fullest = int(mask[:, : columns // n * n].view(rows, -1, n).sum(2).max()) if columns >= n else n
    entries = sum(stored_entries(m, config.lanes) for m in mask.chunk(blocks))
    sizes = {
        "dense": dense_bits(rows, columns, weight_bits),
        "COO": coo_bits(rows, columns, kept, weight_bits),
        "CSR": csr_bits(rows, columns, kept, weight_bits),
        "bitmap": bitmap_bits(rows, columns, kept, weight_bits),
        "k-of-n": k_of_n_bits(rows, columns, fullest, n, weight_bits),
        "espalier": espalier_bits(columns, entries, weight_bits, config),
    }
    by_column = {"dense": nonzero, "COO": nonzero}  # in column order, both can skip columns
    words = beat_bits(entries, weight_bits, config) * nonzero
    traffic = {name: bits * by_column.get(name, 1.0) for name, bits in sizes.items()}
    traffic["espalier"] = words + _descriptor_bits(columns, config)
    return [Footprint(format=f, bits=sizes[f], traffic_bits=traffic[f]) for f in FORMATS]


def index_bits(choices: int) -> int:
    """Bits that tell one of so many."""
    return max(1, math.ceil(math.log2(choices))) if choices > 1 else 0


def dense_bits(rows: int, columns: int, weight_bits: int) -> int:
    return rows * columns * weight_bits


def coo_bits(rows: int, columns: int, kept: int, weight_bits: int) -> int:
    """A row and a column number beside each weight."""
    return kept * (weight_bits + index_bits(rows) + index_bits(columns))


def csr_bits(rows: int, columns: int, kept: int, weight_bits: int) -> int:
    """A column number beside each weight, and where every row begins."""
    return kept * (weight_bits + index_bits(columns)) + (rows + 1) * index_bits(kept + 1)


def bitmap_bits(rows: int, columns: int, kept: int, weight_bits: int) -> int:
    """A bit for each place, and the weights."""
    return rows * columns + kept * weight_bits


def k_of_n_bits(rows: int, columns: int, k: int, n: int, weight_bits: int) -> int:
    """k weights of every n, each with its place among them."""
    return rows * -(-columns // n) * k * (weight_bits + index_bits(n))


def espalier_bits(columns: int, entries: int, weight_bits: int, config: Config) -> int:
    """An entry (4-bit digit, 5-bit slot, 1 spare) for each digit, and a descriptor for each group
    of columns. On the chip; in DDR see `beat_bits`."""
    return entries * (weight_bits // 4) * ENTRY.width + _descriptor_bits(columns, config)


def beat_bits(entries: int, weight_bits: int, config: Config) -> int:
    """The entries in DDR: beats of `quads_per_beat` quads of 4 entries."""
    quads = -(-entries * (weight_bits // 4) // 4)
    return -(-quads // config.quads_per_beat) * BEAT_BYTES * 8


def _descriptor_bits(columns: int, config: Config) -> int:
    groups = config.groups_per_array(columns) * config.arrays
    return groups * DESCRIPTOR_BITS


def break_even(
    rows: int,
    columns: int,
    weight_bits: int = 4,
    *,
    config: Config = DE1_SOC,
) -> dict[str, float]:
    """The density below which each format takes fewer bits than the dense matrix; 0 for never.

    For k-of-n the density is k/n as it likes, for ours a pattern without padding.
    """
    size = rows * columns
    dense = dense_bits(rows, columns, weight_bits)
    of_kept: dict[str, Callable[[int], float]] = {
        "COO": lambda kept: coo_bits(rows, columns, kept, weight_bits),
        "CSR": lambda kept: csr_bits(rows, columns, kept, weight_bits),
        "bitmap": lambda kept: bitmap_bits(rows, columns, kept, weight_bits),
        "k-of-n": lambda kept: kept * (weight_bits + index_bits(4)),
        "espalier": lambda kept: espalier_bits(columns, kept, weight_bits, config),
    }
    return {name: _largest(bits, dense, size) / size for name, bits in of_kept.items()}


def _largest(bits: Callable[[int], float], limit: float, size: int) -> int:
    """The most kept weights whose bits, which grow with them, stay below the limit."""
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bits(middle) < limit else (low, middle - 1)
    return low if bits(low) < limit else 0
