"""What a feeder reads: activations, last-sent values and descriptors, a group a word."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from espalier.spec.config import ITEM_BYTES, Config

from .cursor import index
from .deltas import columns_layout, descriptor_layout


def group_write(config: Config) -> data.StructLayout:
    """One word into the activations (from the loader or the vector unit) or the descriptors."""
    return data.StructLayout({
        "activations": 1,
        "descriptors": 1,
        "address": index(max(config.column_depth, config.descriptor_depth)),
        "data": 8 * ITEM_BYTES,
    })


def kept_write(config: Config) -> data.StructLayout:
    """One group of last-sent values."""
    return data.StructLayout({
        "enable": 1, "address": index(config.column_depth), "data": columns_layout(config),
    })


class GroupMemories(wiring.Component):
    """Activations x, last-sent values s and descriptors of one array; outputs a cycle after `read`.

    All in block RAM with one write and one read a cycle. Outputs stay until the next `read`. What
    is read in the cycle in which it is written must not be used: `Fetch` sees to it for s, the
    program's waits for x and the descriptors.
    """

    def __init__(self, config: Config):
        self._config = config
        columns = columns_layout(config)
        super().__init__({
            "write": In(group_write(config)),
            "kept": In(kept_write(config)),
            "read": In(1),
            "x_address": In(index(config.column_depth)),
            "s_address": In(index(config.column_depth)),
            "words_address": In(index(config.descriptor_depth)),
            "x": Out(columns),
            "s": Out(columns),
            "words": Out(descriptor_layout(config)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        columns, descriptors = self._config.column_depth, self._config.descriptor_depth

        def memory(name, depth, enable, written, address, output):
            m.submodules[name] = words = Memory(
                shape=len(Value.cast(output)), depth=depth, init=[]
            )
            write, read = words.write_port(), words.read_port()
            m.d.comb += [
                write.en.eq(enable),
                write.addr.eq(written.address),
                write.data.eq(written.data),
                read.en.eq(self.read),
                read.addr.eq(address),
                Value.cast(output).eq(read.data),
            ]

        write, kept = self.write, self.kept
        memory("activations", columns, write.activations, write, self.x_address, self.x)
        memory("last_sent", columns, kept.enable, kept, self.s_address, self.s)
        memory("descriptors", descriptors, write.descriptors, write, self.words_address, self.words)
        return m
