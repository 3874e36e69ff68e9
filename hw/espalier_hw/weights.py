"""Weight memories: the loader's quads are put in place once, for the banks of every array."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from espalier.spec.config import Config
from espalier.spec.memory import ENTRY, QUAD_BITS

from .datapath import data_output
from .interfaces import WeightWrite

BLOCK_WORDS = 256
"""Words of 40 bits in one block RAM of a Cyclone V."""
USED_BITS = sum(field.width for field in ENTRY.fields)
"""Bits of an entry that are kept: with the unused one a quad would take two block RAMs of an ECP5,
which have 36 bits."""


def weight_address(config: Config) -> Shape:
    return Shape.cast(range(max(config.weight_depth, 2)))


def bank_depths(depth: int) -> list[int]:
    """Powers of two, largest first, that make up `depth` rounded up to whole block RAMs.

    >>> bank_depths(768)
    [512, 256]
    """
    blocks = -(-depth // BLOCK_WORDS)
    return [BLOCK_WORDS << bit for bit in reversed(range(blocks.bit_length())) if blocks >> bit & 1]


def quad_write(config: Config) -> data.StructLayout:
    """One quad into one bank."""
    return data.StructLayout({"enable": 1, "address": weight_address(config), "data": QUAD_BITS})


def quad_writes(config: Config) -> data.ArrayLayout:
    return data.ArrayLayout(quad_write(config), config.lanes // 4)


class WeightCrossbar(wiring.Component):
    """Moves each of the loader's quads to the bank it belongs to; one for all arrays.

    Stages: choice of quad for each bank | quads in place: `quads[q]`, for array `array`, follows
    `write` by two cycles.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "write": In(WeightWrite(config)),
            "quads": Out(quad_writes(config)),
            "array": Out(range(max(config.arrays, 2))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write, banks = self.write, self._config.lanes // 4
        array, quads = (
            Signal.like(value, name=f"{name}_now", reset_less=True)
            for name, value in (("array", write.array), ("quads", write.quads))
        )
        m.d.sync += [array.eq(write.array), self.array.eq(array), quads.eq(write.quads)]
        address, following = (
            Signal.like(self.quads[0].address, name=name, reset_less=True)
            for name in ("address", "following")
        )
        m.d.sync += [address.eq(write.address), following.eq(write.address + 1)]
        for q, out in enumerate(self.quads):
            choice = Signal(range(self._config.quads_per_beat), name=f"choice_{q}", reset_less=True)
            enable, wraps = Signal(name=f"enable_{q}"), Signal(name=f"wraps_{q}", reset_less=True)
            written = Signal(name=f"written_{q}")
            m.d.comb += out.enable.eq(written)
            m.d.sync += [enable.eq(0), written.eq(enable)]
            for i in range(self._config.quads_per_beat):
                with m.If(write.first == (q - i) % banks):
                    m.d.sync += [
                        choice.eq(i), wraps.eq(q < i), enable.eq(write.valid & (write.count > i)),
                    ]
            m.d.sync += [
                data_output(m, out.address, f"address_{q}").eq(Mux(wraps, following, address)),
                data_output(m, out.data, f"data_{q}").eq(quads[choice]),
            ]
        return m


class WeightBank(wiring.Component):
    """One quad's weights: `depth` words in block RAM, one write and one read a cycle.

    `data[p]` is what part p holds at `address`, one cycle later; `part` says which of them counts.
    The choice is left to the lanes, where it shares a LUT with the choice of a drain. A part is a
    power of two deep, so that no more than two or three outputs meet (768 words: 512 + 256). An
    entry's unused bit reads as 0.
    """

    def __init__(self, config: Config):
        self._depths = bank_depths(config.weight_depth)
        super().__init__({
            "write": In(quad_write(config)),
            "address": In(weight_address(config)),
            "data": Out(data.ArrayLayout(QUAD_BITS, len(self._depths))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unused = Const(0, ENTRY.width - USED_BITS)
        for p, depth in enumerate(self._depths):
            memory = Memory(shape=data.ArrayLayout(USED_BITS, 4), depth=depth, init=[])
            m.submodules[f"part_{p}"] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(self.write.address),
                *(
                    entry.eq(self.write.data.word_select(i, ENTRY.width))
                    for i, entry in enumerate(write.data)
                ),
                write.en.eq(self.write.enable & (part_of(self._depths, self.write.address) == p)),
                read.addr.eq(self.address),
                self.data[p].eq(Cat(Cat(entry, unused) for entry in read.data)),
            ]
        return m


def part_of(depths: list[int], address: Value) -> Value:
    """The part that holds `address`.

    Parts lie one after the other, largest first, so that each begins at a multiple of its depth.
    """
    part, end = Const(len(depths) - 1), sum(depths)
    for p in reversed(range(len(depths) - 1)):
        end -= depths[p + 1]
        low = depths[p].bit_length() - 1
        part = Mux(address[low:] == (end - 1) >> low, p, part)
    return part
