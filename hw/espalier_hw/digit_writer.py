"""Column inputs to weight entries: digits, slots and addresses, on the way to the weight
memories."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import SLOTS, Config
from espalier.spec.memory import ENTRY

from .datapath import data_output, data_register
from .expand_walk import place_layout
from .interfaces import WeightWrite, struct
from .weights import weight_address

QUAD_LANES = 4
SATURATED = ("01111---", "10000---", "10001000")
"""Bytes above 119 or below -119, whose digits are both 7 or both -7."""


def digit(byte: Value, plane: Value) -> Value:
    """The low or (`plane`) high balanced digit of a signed byte saturated to +-119."""
    nibble = Mux(plane, byte[4:] + byte[3], byte[:4])
    return Mux(byte.matches(*SATURATED), Mux(byte[7], -7 & 0xF, 7), nibble)[:4]


class DigitWriter(Component):
    """Makes one write of `octet` a cycle, two cycles later: all of it (an item), or (`quad`) its
    first four bytes.

    Members
    -------
    valid: strobe. place: where to. height, slots: words and slots of a digit plane.
    busy: a write is under way, or at `weights`.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "valid": In(1),
                "quad": In(1),
                "octet": In(data.ArrayLayout(8, config.group)),
                "place": In(place_layout(config)),
                "height": In(range(SLOTS + 1)),
                "slots": In(range(SLOTS)),
                "weights": Out(WeightWrite(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        place, weights = self.place, self.weights
        valid = Signal()
        octet = data_register(self.octet.shape(), "octet_now")
        column = data_register(weight_address(self._config), "column")
        word = data_register(place.word.shape(), "word")
        first_slot = data_register(place.slot.shape(), "first_slot")
        array, first, plane = (
            data_register(place[name].shape(), f"{name}_now")
            for name in ("array", "first", "plane")
        )
        # sums of two
        m.d.sync += [
            valid.eq(self.valid),
            octet.eq(self.octet),
            column.eq(place.column + place.head),
            word.eq(place.word + Mux(place.plane, self.height, 0)),
            first_slot.eq(place.slot + place.word),
            array.eq(place.array),
            first.eq(place.first),
            plane.eq(place.plane),
        ]
        # digits, sums of three
        slot = data_register(place.slot.shape(), "slot")
        address = data_register(weight_address(self._config), "address")
        m.d.sync += [
            weights.valid.eq(valid),
            data_output(m, weights.array, "array").eq(array),
            data_output(m, weights.first, "first").eq(first),
            address.eq(column + word),
            slot.eq(first_slot + Mux(plane, self.slots, 0)),
        ]
        for i, byte in enumerate(octet):
            written = data_register(4, f"digit_{i}")
            m.d.sync += written.eq(digit(byte, plane))
            entry = Signal(struct(ENTRY), name=f"entry_{i}")
            quad = weights.quads[i // QUAD_LANES]
            m.d.comb += [
                entry.digit.eq(written),
                entry.slot.eq(slot),
                quad.word_select(i % QUAD_LANES, ENTRY.width).eq(entry),
            ]
        m.d.comb += [
            weights.address.eq(address),
            weights.count.eq(Mux(self.quad, 1, self._config.group // QUAD_LANES)),
            self.busy.eq(valid | weights.valid),
        ]
        return m
