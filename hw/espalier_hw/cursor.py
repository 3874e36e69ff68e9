"""Walks through the groups of one product after the other."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import Config
from espalier.spec.isa import Mode

HAZARD_BITS = 4
"""Address bits compared between reads and pending writes of last-sent values: the few groups in
flight, neighbours, differ in them, so that a product never waits for itself."""


def index(depth: int) -> Shape:
    """Of an address in a memory of `depth` words."""
    return Shape.cast(range(max(depth, 2)))


def product_layout(config: Config) -> data.StructLayout:
    """A PRODUCT's fields, as wide as this configuration's memories need them."""
    return data.StructLayout({
        "mode": 2,
        "threshold": 8,
        "groups": range(config.column_depth + 1),
        "activations": index(config.column_depth),
        "last": index(config.column_depth),
        "descriptors": index(config.descriptor_depth),
    })


def tag_layout(config: Config) -> data.StructLayout:
    """What travels with a group: how to take it, its last-sent address, whether it is the last."""
    return data.StructLayout({
        "mode": 2, "threshold": 8, "last": index(config.column_depth), "final": 1,
    })


def writes(tag: data.View) -> Value:
    """The group's last-sent values are written."""
    return (tag.mode == Mode.COMMIT) | (tag.mode == Mode.CLEAR)


class Cursor(wiring.Component):
    """The addresses of a product's groups, one group a cycle; a waiting product follows at once.

    A product of 0 groups walks through all that its counter can count.

    Members
    -------
    enable: the group is taken in this cycle. valid: there is a group.
    activations, descriptors, tag: where it lies and how to take it.
    low: the lowest bits of `tag.last`, from a register of their own.
    """

    def __init__(self, config: Config):
        super().__init__({
            "command": In(stream.Signature(product_layout(config))),
            "enable": In(1),
            "valid": Out(1),
            "activations": Out(index(config.column_depth)),
            "descriptors": Out(index(config.descriptor_depth)),
            "tag": Out(tag_layout(config)),
            "low": Out(HAZARD_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, tag = self.command.payload, self.tag
        product = Signal.like(command, reset_less=True)
        # `following` = step + 1 is a register of its own: the last group is known early
        step, following = (
            Signal.like(command.groups, name=name, reset_less=True)
            for name in ("step", "following")
        )
        m.d.comb += [
            # one counter and three sums need no multiplexers, three counters would
            self.activations.eq(product.activations + step),
            self.descriptors.eq(product.descriptors + step),
            tag.last.eq(product.last + step),
            tag.mode.eq(product.mode),
            tag.threshold.eq(product.threshold),
            tag.final.eq(following == product.groups),
            self.command.ready.eq(~self.valid | (self.enable & tag.final)),
        ]
        with m.If(self.command.ready):
            m.d.sync += [self.valid.eq(self.command.valid), product.eq(command)]
            m.d.sync += [step.eq(0), following.eq(1), self.low.eq(command.last)]
        with m.Elif(self.enable):
            m.d.sync += [
                step.eq(following), following.eq(following + 1), self.low.eq(self.low + 1),
            ]
        return m
