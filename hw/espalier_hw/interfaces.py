"""What the units say to each other: layouts derived from the contract, and the signatures of ports.

Streams follow `amaranth.lib.stream` (payload holds while valid and not ready). All other ports are
plain strobes: the data beside a strobe counts in the cycle in which it is 1, and cannot be refused.
"""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from espalier.spec import isa
from espalier.spec.config import BEAT_BYTES, ITEM_BYTES, SUM_BITS, Config
from espalier.spec.fields import Layout
from espalier.spec.memory import ENTRY, QUAD_BITS, Memory

BEAT_BITS = 8 * BEAT_BYTES
ITEM_BITS = 8 * ITEM_BYTES
ITEMS_PER_BEAT = BEAT_BYTES // ITEM_BYTES
MEMORY_BITS = isa.LAYOUTS[isa.Opcode.LOAD].fields[1 + len(isa.UNITS)].width
ADDRESS_BITS = 32


def struct(layout: Layout, *, skip: tuple[str, ...] = ()) -> data.StructLayout:
    """The Amaranth layout of a contract layout's fields, in its order; bits above the last field
    are not part of it."""
    shapes = {
        f.name: signed(f.width) if f.signed else unsigned(f.width)
        for f in layout.fields
        if f.name not in skip
    }
    result = data.StructLayout(shapes)
    assert result.size == sum(f.width for f in layout.fields if f.name not in skip)
    return result


_ISSUE_FIELDS = ("opcode", *(f"wait_{unit}" for unit in isa.UNITS))
PRODUCT_COMMAND = struct(isa.LAYOUTS[isa.Opcode.PRODUCT], skip=_ISSUE_FIELDS)
"""Own fields of a PRODUCT."""
TAIL_BITS = 7
VECTOR_COMMAND = data.StructLayout(
    {
        **struct(
            isa.LAYOUTS[isa.Opcode.VECTOR], skip=(*_ISSUE_FIELDS, "register", "bounded")
        ).members,
        "tail": TAIL_BITS,
    }
)
"""Own fields of a VECTOR, its bound resolved: `count` is the number of chunks that are taken,
`tail` that of the last one's elements that count, less one. The DDR address goes to the store
unit."""
LOAD_COMMAND = data.StructLayout(
    {"memory": MEMORY_BITS, "address": 16, "count": 16, "ddr": ADDRESS_BITS}
)
"""A LOAD into any memory but the weights', with its DDR address (window offset) computed."""
EXPAND_FIELDS = ("most", "heads", "groups", "slot", "slots", "gap")
GAP_BITS = isa.LAYOUTS[isa.Opcode.EXPAND].fields[-1].width
WEIGHTS_COMMAND = data.StructLayout(
    {
        "expand": 1,
        "kind": MEMORY_BITS,
        "address": 16,
        "count": 16,
        "ddr": ADDRESS_BITS,
        **{
            f.name: f.width
            for f in isa.LAYOUTS[isa.Opcode.EXPAND].fields
            if f.name in EXPAND_FIELDS
        },
    }
)
"""A LOAD of weights with its DDR address computed; or (`expand`) an EXPAND: `count` is the number
of tokens, and kind and the fields behind are its own."""
KIND_BITS = max(isa.Store).bit_length()
STORE_COMMAND = data.StructLayout({"ddr": ADDRESS_BITS, "chunks": 9, "kind": KIND_BITS})
"""The DDR half of a VECTOR with a store; `kind` is of `isa.Store`."""


def _index(count: int) -> Shape:
    return Shape.cast(range(max(count, 2)))


def item_layout(config: Config) -> data.StructLayout:
    """One loader item on its way to a memory.

    `address` is the word, group, chunk or segment; `part` the item's number within the address
    (vector: lanes 4·part..,
    sums: lanes 2·part.., parameters: lane part); `array` counts for activations and descriptors.
    """
    return data.StructLayout(
        {
            "memory": MEMORY_BITS,
            "address": 16,
            "part": _index(config.vector_lanes),
            "array": _index(config.arrays),
            "data": ITEM_BITS,
        }
    )


def items(config: Config) -> stream.Signature:
    return stream.Signature(item_layout(config))


class WeightWrite(Signature):
    """Up to three quads of one array's weight words: quad `first` + i of word `address`, wrapping
    into the next word.

    `quads[i]` is written when i < `count`. Quad q of a word holds the entries of lanes 4q .. 4q+3.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "valid": Out(1),
                "array": Out(_index(config.arrays)),
                "address": Out(16),
                "first": Out(_index(config.lanes // 4)),
                "count": Out(2),
                "quads": Out(data.ArrayLayout(QUAD_BITS, config.quads_per_beat)),
            }
        )


class ProgramWrite(Signature):
    """One instruction into program memory."""

    def __init__(self) -> None:
        super().__init__({"valid": Out(1), "address": Out(16), "data": Out(isa.INSTRUCTION_BITS)})


class ColumnWrite(Signature):
    """One chunk of column inputs, vector unit to engine: V/G whole groups, never refused.

    The first group goes to `array` at word `address`, the next ones to the following arrays,
    wrapping to array 0 of the next word.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "valid": Out(1),
                "array": Out(_index(config.arrays)),
                "address": Out(10),
                "data": Out(data.ArrayLayout(signed(8), config.vector_lanes)),
            }
        )


def drained_bits(config: Config) -> int:
    """Width of one drained row: 20 bits summed over arrays."""
    from espalier.spec.config import ACCUMULATOR_BITS

    return ACCUMULATOR_BITS + (config.arrays - 1).bit_length()


class Drain(Signature):
    """Read-and-clear of one chunk in all arrays, vector unit to engine.

    A `valid` request is taken in its cycle, always; `sums` answers `engine.DRAIN_LATENCY` cycles
    later: V rows summed over the arrays.

    `follows` promises that the next so many requests are for the next chunks, each with `continues`
    = 1. The engine reads all of them that lie in the same slot at once: only the first takes a
    cycle from the products.
    """

    def __init__(self, config: Config):
        super().__init__(
            {
                "valid": Out(1),
                "chunk": Out(7),
                "follows": Out(2),
                "continues": Out(1),
                "sums": In(data.ArrayLayout(signed(drained_bits(config)), config.vector_lanes)),
            }
        )


def stored_chunk(config: Config) -> data.StructLayout:
    """A chunk on its way to DDR as it lies there, from bit 0 up: by `kind` (`isa.Store`) values of
    16 bits, sums of 32 bits, or column inputs in V/G items of 64 bits."""
    return data.StructLayout({"kind": KIND_BITS, "data": 32 * config.vector_lanes})


class EngineEvents(Signature):
    """What the engine counts, per cycle."""

    def __init__(self, config: Config):
        super().__init__(
            {
                "running": Out(1),
                "words": Out(range(config.arrays + 1)),
                "visits": Out(range(config.arrays * 2 * config.group + 1)),
                "skipped": Out(range(config.arrays * config.group + 1)),
            }
        )


class Axi4(Signature):
    """AXI4 master, 128 bits, one id, INCR bursts of at most 16 beats that cross no 4 KiB
    boundary."""

    def __init__(self) -> None:
        def address(prefix: str) -> dict:
            return {
                f"{prefix}valid": Out(1),
                f"{prefix}ready": In(1),
                f"{prefix}addr": Out(ADDRESS_BITS),
                f"{prefix}len": Out(8),
                f"{prefix}size": Out(3),
                f"{prefix}burst": Out(2),
            }

        super().__init__(
            {
                **address("ar"),
                **address("aw"),
                "rvalid": In(1),
                "rready": Out(1),
                "rdata": In(BEAT_BITS),
                "rresp": In(2),
                "rlast": In(1),
                "wvalid": Out(1),
                "wready": In(1),
                "wdata": Out(BEAT_BITS),
                "wstrb": Out(BEAT_BYTES),
                "wlast": Out(1),
                "bvalid": In(1),
                "bready": Out(1),
                "bresp": In(2),
            }
        )


class Axi4Lite(Signature):
    """AXI4-Lite master side, 32 bits; the register block has it flipped."""

    def __init__(self, address_bits: int = 12) -> None:
        super().__init__(
            {
                "awvalid": Out(1),
                "awready": In(1),
                "awaddr": Out(address_bits),
                "wvalid": Out(1),
                "wready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "bvalid": In(1),
                "bready": Out(1),
                "bresp": In(2),
                "arvalid": Out(1),
                "arready": In(1),
                "araddr": Out(address_bits),
                "rvalid": In(1),
                "rready": Out(1),
                "rdata": In(32),
                "rresp": In(2),
            }
        )


assert ENTRY.width * 4 == QUAD_BITS and len(Memory) <= 1 << MEMORY_BITS and SUM_BITS <= 32
