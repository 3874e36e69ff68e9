"""Walks through the groups of one product after the other."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import Config
from espalier.spec.isa import Mode

from .interfaces import PRODUCT_COMMAND


def index(depth: int) -> Shape:
    """Of an address in a memory of `depth` words."""
    return Shape.cast(range(max(depth, 2)))


def tag_layout(config: Config) -> data.StructLayout:
    """What travels with a group: how to take it, its last-sent address, and whether it is its product's last."""
    return data.StructLayout({
        "mode": 2, "threshold": 8, "last": index(config.column_depth), "final": 1,
    })


def writes(tag: data.View) -> Value:
    """The group's last-sent values are written."""
    return (tag.mode == Mode.COMMIT) | (tag.mode == Mode.CLEAR)


class Cursor(wiring.Component):
    """The addresses of a product's groups, one group a cycle; a waiting product follows without a gap.

    A command of 0 groups walks through all 2^11.

    Members
    -------
    enable: the group may be taken in this cycle. valid: there is a group.
    activations, descriptors, tag: where it lies; `tag.threshold` is 0 in PLAIN.
    """

    def __init__(self, config: Config):
        super().__init__({
            "command": In(stream.Signature(PRODUCT_COMMAND)),
            "enable": In(1),
            "valid": Out(1),
            "activations": Out(index(config.column_depth)),
            "descriptors": Out(index(config.descriptor_depth)),
            "tag": Out(tag_layout(config)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, tag = self.command.payload, self.tag
        remaining = Signal.like(command.groups, reset_less=True)
        last = Signal.like(tag.last, reset_less=True)
        mode, threshold = Signal(2, reset_less=True), Signal(8, reset_less=True)
        m.d.comb += [
            tag.mode.eq(mode),
            tag.threshold.eq(threshold),
            tag.last.eq(last),
            tag.final.eq(remaining == 1),
            self.command.ready.eq(~self.valid | (self.enable & tag.final)),
        ]
        counters = (
            (last, command.last),
            (self.activations, command.activations),
            (self.descriptors, command.descriptors),
        )
        with m.If(self.command.ready):
            m.d.sync += [
                self.valid.eq(self.command.valid),
                mode.eq(command.mode),
                threshold.eq(Mux(command.mode == Mode.PLAIN, 0, command.threshold)),
                remaining.eq(command.groups),
                *(counter.eq(first) for counter, first in counters),
            ]
        with m.Elif(self.enable):
            m.d.sync += [remaining.eq(remaining - 1), *(c.eq(c + 1) for c, _ in counters)]
        return m
