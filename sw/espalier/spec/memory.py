"""The on-chip memories: what one word holds, and how it lies in DDR for the loader.

DDR is little-endian and moves in beats of 16 bytes. All memories but weights and program are
written by *items* of 8 bytes, two a beat, in the order below; a transfer always starts on a beat
and its unused last half is padding.

weights      quads of 4 entries (40 bits), `Config.quads_per_beat` a beat from bit 0 up: word 0 of
             array 0 from lane 0 up, word 1, ...; each array starts on a new beat. `count` = words
             per array, all arrays in turn.
descriptors  one item a group; `count` = groups per array, all arrays in turn, each array starting
             on a new beat.
activations  one item a group: `group` signed bytes from bit 0 up (a group of 4 leaves the upper 4
             bytes unused). Group g goes to array g mod A, word address + g div A. `count` = groups
             in all.
vector       4 elements of 16 bits an item; `count` = items; item i goes to chunk address +
             i div (V/4), lanes from 4·(i mod (V/4)).
sums         2 signed elements of 32 bits an item (the upper 5 bits repeat the sign); like vector,
             V/2 items a chunk.
parameters   one item a row (`PARAMETER`); V items a chunk. The last 32 chunks are the scalars.
tables       one item a segment (`TABLE_ENTRY`); table t, segment s at address t·128 + s; every
             vector lane gets a copy.
program      one instruction a beat; `count` = instructions.

An EXPAND writes weights from rows of column inputs, one row a token (`VECTOR` with Store.COLUMNS
writes such rows), `gap` beats apart: H heads of F = groups·G elements each. An element x saturates
to ±119 and becomes two digits, low and high. A head is a matrix of columns and rows: with
Expand.COLUMNS column j and row f are token j and element f, with Expand.ROWS column f and row j.
Row r of plane p lies in lane r mod L, slot `slot` + (2·head + p)·`slots` + r div L; with S =
ceil(rows / L) words in a plane it is word p·S + r div L of its column, so that columns have 2·S
words each, in order. Columns are dealt to the arrays in groups as always, from word `address` on:
with Expand.COLUMNS every head's from a new group of array 0 with room for `most` tokens, with
Expand.ROWS all heads' one after the other. Whole words are written, with digit 0 where there is no
row.
"""

from __future__ import annotations

from enum import IntEnum

from .config import BEAT_BYTES, ITEM_BYTES, Config
from .fields import Field, Layout
from .numerics import BIAS_BITS, MULTIPLIER_BITS, SHIFTS, TABLE_SEGMENTS


class Memory(IntEnum):
    """Target of a LOAD."""

    PROGRAM = 0
    WEIGHTS = 1
    DESCRIPTORS = 2
    ACTIVATIONS = 3
    VECTOR = 4
    SUMS = 5
    PARAMETERS = 6
    TABLES = 7


ENTRY = Layout(
    "entry",
    10,
    (
        Field("digit", 4, "balanced base-16 digit", signed=True),
        Field("slot", 5, "accumulator in the lane"),
    ),
)
"""One weight: lane i of a word is bits 10·i upwards. A padding entry has digit 0."""

QUAD_BITS = 4 * ENTRY.width
"""Bits of four neighbouring lanes' entries: one 256 x 40 block RAM word."""

COUNT_BITS = 6


def descriptor(config: Config) -> Layout:
    """Where a group's columns lie: the first column's words at `base`, the next right after it, and
    so on."""
    counts = (
        Field(f"count{i}", COUNT_BITS, f"words of column {i} (0..32)") for i in range(config.group)
    )
    return Layout(
        "descriptor", 64, (Field("base", 16, "first word in the array's weight memory"), *counts)
    )


PARAMETER = Layout(
    "parameter",
    64,
    (
        Field("multiplier", MULTIPLIER_BITS, "row scale mantissa"),
        Field("shift", 2, f"row scale shift, an index into {SHIFTS}"),
        Field(
            "bias",
            BIAS_BITS,
            "bias in sixteenths of the result's unit; a scalar's in units",
            signed=True,
        ),
    ),
)

TABLE_ENTRY = Layout(
    "table entry",
    64,
    (
        Field("base", 16, "value at the segment's start", signed=True),
        Field("slope", 16, "difference over the segment", signed=True),
    ),
)


def depth(config: Config, memory: Memory) -> int:
    """Addresses of one memory: instructions, words or groups of one array, chunks, or table
    segments."""
    return {
        Memory.PROGRAM: config.program_depth,
        Memory.WEIGHTS: config.weight_depth,
        Memory.DESCRIPTORS: config.descriptor_depth,
        Memory.ACTIVATIONS: config.column_depth,
        Memory.VECTOR: config.vector_depth,
        Memory.SUMS: config.sum_depth,
        Memory.PARAMETERS: config.parameter_depth,
        Memory.TABLES: config.tables * TABLE_SEGMENTS,
    }[memory]


def items_per_address(config: Config, memory: Memory) -> int:
    """Loader items that fill one address (activations: one address of all arrays; not for program
    and weights)."""
    return {
        Memory.DESCRIPTORS: 1,
        Memory.ACTIVATIONS: config.arrays,
        Memory.VECTOR: config.vector_lanes // 4,
        Memory.SUMS: config.vector_lanes // 2,
        Memory.PARAMETERS: config.vector_lanes,
        Memory.TABLES: 1,
    }[memory]


def beats(config: Config, memory: Memory, count: int) -> int:
    """DDR beats that a LOAD of `count` reads."""
    if memory is Memory.PROGRAM:
        return count
    if memory is Memory.WEIGHTS:
        quads = count * (config.lanes // 4)
        return config.arrays * -(-quads // config.quads_per_beat)
    items_per_beat = BEAT_BYTES // ITEM_BYTES
    if memory is Memory.DESCRIPTORS:
        return config.arrays * -(-count // items_per_beat)
    return -(-count // items_per_beat)


def load_fits(config: Config, memory: Memory, address: int, count: int) -> bool:
    """Whether a LOAD of `count` at `address` stays inside the memory."""
    if memory in (Memory.PROGRAM, Memory.WEIGHTS, Memory.DESCRIPTORS):
        last = address + count
    else:
        last = address + -(-count // items_per_address(config, memory))
    return count >= 1 and last <= depth(config, memory)
