"""On-chip memories of the reference machine: arrays of integers, and how a LOAD fills them from DDR
bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from espalier.spec import expansion
from espalier.spec.config import BEAT_BYTES, ITEM_BYTES, SLOTS, Config
from espalier.spec.fields import Layout
from espalier.spec.isa import (
    INSTRUCTION_BYTES,
    Expand,
)
from espalier.spec.memory import (
    ENTRY,
    PARAMETER,
    QUAD_BITS,
    TABLE_ENTRY,
    Memory,
    descriptor,
    items_per_address,
)
from espalier.spec.numerics import SHIFTS, TABLE_SEGMENTS, WEIGHT_LEVELS, split_digits


def unpack(words: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """All fields of uint64 words as int64 arrays."""
    result, position = {}, 0
    for field in layout.fields:
        value = ((words >> np.uint64(position)) & np.uint64((1 << field.width) - 1)).astype(
            np.int64
        )
        if field.signed:
            value -= (value >> (field.width - 1)) << field.width
        result[field.name] = value
        position += field.width
    return result


def expand_rows(
    window: bytes | bytearray, address: int, tokens: int, fields: Mapping[str, int], config: Config
) -> np.ndarray:
    """The rows of `tokens` that an EXPAND reads, uint8 [tokens, bytes]."""
    size = expansion.row_bytes(fields, config)
    distance = size + fields["gap"] * BEAT_BYTES
    starts = range(address, address + tokens * distance, distance)
    rows = b"".join(window[start : start + size] for start in starts)
    return np.frombuffer(rows, np.uint8).reshape(tokens, size)


class Memories:
    """State of every memory, zero at power-up. Shapes: arrays A, lanes L, group G, vector lanes V.

    slots [A, 32, L] · digits, entry_slots [A, weight_depth, L] · bases [A, descriptor_depth],
    counts [.., G] ·
    activations, last [A, column_depth, G] · vector, sums [chunks, V] · parameters {name: [chunks,
    V]} · tables {name: [tables·128]} ·
    program: 128-bit integers.
    """

    def __init__(self, config: Config):
        c, self.config = config, config
        a, v = c.arrays, c.vector_lanes
        self.slots = np.zeros((a, SLOTS, c.lanes), np.int64)
        self.digits = np.zeros((a, c.weight_depth, c.lanes), np.int64)
        self.entry_slots = np.zeros((a, c.weight_depth, c.lanes), np.int64)
        self.bases = np.zeros((a, c.descriptor_depth), np.int64)
        self.counts = np.zeros((a, c.descriptor_depth, c.group), np.int64)
        self.activations = np.zeros((a, c.column_depth, c.group), np.int64)
        self.last = np.zeros((a, c.column_depth, c.group), np.int64)
        self.vector = np.zeros((c.vector_depth, v), np.int64)
        self.sums = np.zeros((c.sum_depth, v), np.int64)
        self.parameters = {
            f.name: np.zeros((c.parameter_depth, v), np.int64) for f in PARAMETER.fields
        }
        self.tables = {
            f.name: np.zeros(c.tables * TABLE_SEGMENTS, np.int64) for f in TABLE_ENTRY.fields
        }
        self.program = [0] * c.program_depth

    def load(self, memory: Memory, address: int, count: int, raw: bytes) -> None:
        """Fill `count` units from `address` with the beats `raw`, in the formats of
        `espalier.spec.memory`."""
        if memory is Memory.PROGRAM:
            for i in range(count):
                word = raw[i * INSTRUCTION_BYTES : (i + 1) * INSTRUCTION_BYTES]
                self.program[address + i] = int.from_bytes(word, "little")
        elif memory is Memory.WEIGHTS:
            self._load_weights(address, count, raw)
        elif memory is Memory.DESCRIPTORS:
            items = np.frombuffer(raw, np.uint64).reshape(self.config.arrays, -1)[:, :count]
            fields = unpack(items, descriptor(self.config))
            self.bases[:, address : address + count] = fields["base"]
            for i in range(self.config.group):
                self.counts[:, address : address + count, i] = fields[f"count{i}"]
        else:
            self._load_items(memory, address, np.frombuffer(raw, np.uint64)[:count])

    def _load_weights(self, address: int, count: int, raw: bytes) -> None:
        c, mask = self.config, np.uint64((1 << QUAD_BITS) - 1)
        low, high = np.frombuffer(raw, "<u8").reshape(c.arrays, -1, 2).transpose(2, 0, 1)
        left, right = np.uint64(64 - QUAD_BITS), np.uint64(QUAD_BITS)
        quads = np.stack([low, low >> right | high << left, high >> np.uint64(16)], 2) & mask
        quads = quads[:, :, : c.quads_per_beat].reshape(c.arrays, -1)[:, : count * c.lanes // 4]
        shifts = np.arange(4, dtype=np.uint64) * np.uint64(ENTRY.width)
        entries = quads[:, :, None] >> shifts & np.uint64((1 << ENTRY.width) - 1)
        fields = unpack(entries.reshape(c.arrays, count, c.lanes), ENTRY)
        self.digits[:, address : address + count] = fields["digit"]
        self.entry_slots[:, address : address + count] = fields["slot"]

    def _load_items(self, memory: Memory, address: int, items: np.ndarray) -> None:
        """Items fill the memory's parts one after the other from `address`; a last address may be
        filled in part."""
        c = self.config
        if memory is Memory.TABLES:
            for name, values in unpack(items, TABLE_ENTRY).items():
                self.tables[name][address : address + len(items)] = values
            return
        first = address * items_per_address(c, memory)
        where = np.arange(first, first + len(items))
        if memory is Memory.PARAMETERS:
            for name, values in unpack(items, PARAMETER).items():
                table = np.asarray(SHIFTS)[values] if name == "shift" else values
                self.parameters[name].reshape(-1)[where] = table
        elif memory is Memory.VECTOR:
            self.vector.reshape(-1, 4)[where] = items.view(np.int16).reshape(-1, 4)
        elif memory is Memory.SUMS:
            self.sums.reshape(-1, 2)[where] = items.view(np.int32).reshape(-1, 2)
        elif memory is Memory.ACTIVATIONS:
            groups = items.view(np.int8).reshape(-1, 8)[:, : c.group]
            self.activations[where % c.arrays, where // c.arrays] = groups

    def expand(self, f: Mapping[str, int], rows: np.ndarray) -> None:
        """Write weights of the rows of `tokens` x bytes, as `espalier.spec.memory` says."""
        c, tokens, heads = self.config, len(rows), f["heads"]
        features = f["groups"] * c.group
        items = rows.view(np.int8).reshape(tokens, -1, ITEM_BYTES)[:, : heads * f["groups"]]
        limit = WEIGHT_LEVELS[8]
        values = items[:, :, : c.group].astype(np.int64).clip(-limit, limit)
        values = values.reshape(tokens, heads, features)
        height = expansion.height(f, c, tokens)
        keys = f["kind"] == Expand.ROWS
        # [columns, rows] of every head, rows padded to whole words
        matrices = values.transpose(1, 2, 0) if keys else values.transpose(1, 0, 2)
        matrices = np.pad(matrices, ((0, 0), (0, 0), (0, height * c.lanes - matrices.shape[2])))
        per_head = c.groups_per_array(f["most"]) * c.group * 2 * height
        for head, matrix in enumerate(matrices):
            digits = np.stack(split_digits(matrix), 1).reshape(len(matrix), 2 * height, c.lanes)
            column = np.arange(len(matrix)) + (head * features if keys else 0)
            group = column // c.group
            word = (group // c.arrays * c.group + column % c.group) * 2 * height
            word = f["address"] + word[:, None] + np.arange(2 * height)
            word += 0 if keys else head * per_head
            array = (group % c.arrays)[:, None]
            plane, slot = np.divmod(np.arange(2 * height), height)
            slot = f["slot"] + (2 * head + plane) * f["slots"] + slot
            self.digits[array, word] = digits
            self.entry_slots[array, word] = slot[:, None]
