"""Weights to words: integer matrices into column-balanced entries, descriptors and their DDR bytes.

Row i of a block lies in lane i mod L at slot first + i div L, its digit planes `plane_slots`
further. Column c belongs to group c div G, group g to array g mod A. A column takes as many words
as its fullest lane has nonzero digits; shorter lanes are padded with digit 0. The pattern of the
zeros does not matter: balanced columns only make the padding vanish.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..parameters import Matrix
from ..spec.config import BEAT_BYTES, SLOTS, Config
from ..spec.memory import COUNT_BITS, ENTRY, QUAD_BITS
from ..spec.numerics import split_digits

DIGIT_BITS = ENTRY.fields[0].width
LEVEL_FROM = 0.9
"""Mean over largest words of a column from which a product counts as dense."""


@dataclass(frozen=True, eq=False)
class Packed:
    """One product's weights.

    Parameters
    ----------
    words: for each array, entries [words, L] (uint16), column after column.
    counts: [A, groups, G], words of every column.
    magnitudes: [A, groups, 32, L], the sum of |digit| over each group's columns, for the
        accumulator proof.
    slots: (first, end) of the slots that it adds to.
    """

    words: tuple[np.ndarray, ...]
    counts: np.ndarray
    magnitudes: np.ndarray
    slots: tuple[int, int]

    @property
    def groups(self) -> int:
        return self.counts.shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """[A], words of each array."""
        return self.counts.sum((1, 2))

    def part(self, first: int, end: int) -> Packed:
        """The groups first..end of every array as a product of their own."""
        starts = self.counts[:, :first].sum((1, 2))
        ends = self.counts[:, :end].sum((1, 2))
        words = tuple(w[a:b] for w, a, b in zip(self.words, starts, ends, strict=True))
        chosen = slice(first, end)
        return Packed(words, self.counts[:, chosen], self.magnitudes[:, chosen], self.slots)


def digit_planes(weight: np.ndarray, planes: int) -> list[np.ndarray]:
    """Balanced base-16 digits, low plane first."""
    return [weight] if planes == 1 else list(split_digits(weight))


def least_words(matrices: list[Matrix], config: Config) -> int:
    """Words of each array if no lane had to be padded."""
    digits = sum(
        int(np.count_nonzero(plane)) for m in matrices for plane in digit_planes(m.weight, m.planes)
    )
    return -(-digits // config.total_lanes)


def plane_height(rows: int, config: Config) -> int:
    """Slots of one digit plane of `rows` rows."""
    return -(-rows // config.lanes)


def place(matrix: Matrix, plane_slots: int, groups: int, config: Config) -> np.ndarray:
    """Digits [A, groups, G, slots, L] of the matrix, its first row in slot 0."""
    rows, columns = matrix.weight.shape
    height = plane_height(rows, config)
    shape = (height * config.lanes, groups * config.arrays * config.group)
    digits = np.zeros((plane_slots * (matrix.planes - 1) + height, config.lanes, shape[1]), np.int8)
    for plane, values in enumerate(digit_planes(matrix.weight.astype(np.int16), matrix.planes)):
        padded = np.zeros(shape, np.int8)
        padded[:rows, :columns] = values
        first = plane * plane_slots
        digits[first : first + height] = padded.reshape(height, config.lanes, -1)
    split = digits.reshape(len(digits), config.lanes, groups, config.arrays, config.group)
    return np.ascontiguousarray(split.transpose(3, 2, 4, 0, 1))


def pack(
    matrix: Matrix,
    first_slot: int,
    plane_slots: int,
    groups: int,
    config: Config,
    level: bool = False,
) -> Packed:
    """The words of `matrix` over a column region of `groups` groups in each array.

    `level` gives all columns the words of the longest one where that costs little, so that
    descriptors repeat.
    """
    digits = place(matrix, plane_slots, groups, config)
    used = digits.shape[3]
    nonzero = digits != 0
    counts = nonzero.sum(3).max(3)
    if level and counts.mean() >= LEVEL_FROM * counts.max():
        counts = np.full_like(counts, counts.max())
    order = np.argsort(~nonzero, axis=3, kind="stable")
    sorted_digits = np.take_along_axis(digits, order, 3).astype(np.int16)
    slots = np.where(sorted_digits == 0, 0, order + first_slot)
    entries = ((sorted_digits & ((1 << DIGIT_BITS) - 1)) | (slots << DIGIT_BITS)).astype(np.uint16)
    kept = np.arange(used) < counts[..., None]
    words = tuple(entries[array][kept[array]] for array in range(config.arrays))
    magnitudes = np.zeros((config.arrays, groups, SLOTS, config.lanes), np.int64)
    magnitudes[:, :, first_slot : first_slot + used] = np.abs(digits.astype(np.int64)).sum(2)
    return Packed(words, counts, magnitudes, (first_slot, first_slot + used))


def weight_bytes(words: list[np.ndarray], count: int, config: Config) -> bytes:
    """DDR form of `count` words of every array (`spec.memory`); shorter arrays are padded with
    empty entries."""
    per_beat = config.quads_per_beat
    shifts = np.arange(4, dtype=np.uint64) * np.uint64(ENTRY.width)
    result = []
    for array in words:
        padded = np.zeros((count, config.lanes), np.uint64)
        padded[: len(array)] = array
        quads = (padded.reshape(-1, 4) << shifts).sum(1, dtype=np.uint64)
        beats = np.zeros((-(-len(quads) // per_beat), 3), np.uint64)
        beats[:, :per_beat] = np.pad(quads, (0, -len(quads) % per_beat)).reshape(-1, per_beat)
        low = beats[:, 0] | (beats[:, 1] << np.uint64(QUAD_BITS))
        high = (beats[:, 1] >> np.uint64(64 - QUAD_BITS)) | (
            beats[:, 2] << np.uint64(2 * QUAD_BITS - 64)
        )
        result.append(np.stack([low, high], 1).astype("<u8").tobytes())
    return b"".join(result)


def bases(packed: Packed, starts: np.ndarray) -> np.ndarray:
    """[A, groups], first word of every group when array a's words begin at starts[a]."""
    per_group = packed.counts.sum(2)
    return starts[:, None] + np.cumsum(per_group, 1) - per_group


def descriptor_words(packed: Packed, starts: np.ndarray) -> np.ndarray:
    """[A, groups] descriptors (uint64)."""
    result = bases(packed, starts).astype(np.uint64)
    for column in range(packed.counts.shape[2]):
        shift = np.uint64(16 + COUNT_BITS * column)
        result |= packed.counts[:, :, column].astype(np.uint64) << shift
    return result


def descriptor_bytes(words: np.ndarray) -> bytes:
    """DDR form of descriptors [A, groups]: each array from a new beat."""
    padded = np.pad(words, ((0, 0), (0, -words.shape[1] % (BEAT_BYTES // 8))))
    return padded.astype("<u8").tobytes()
