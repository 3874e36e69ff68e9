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
ENTRY_BITS = struct(ENTRY).size
SATURATED = ("01111---", "10000---", "10001000")
"""Bytes above 119 or below -119, whose digits are both 7 or both -7."""


def digit(byte: Value, plane: Value) -> Value:
    """The low or (`plane`) high balanced digit of a signed byte saturated to +-119."""
    nibble = Mux(plane, byte[4:] + byte[3], byte[:4])
    return Mux(byte.matches(*SATURATED), Mux(byte[7], -7 & 0xF, 7), nibble)[:4]


class DigitWriter(Component):
    """Makes one write of `octet` a cycle, two cycles later: all of it (an item), or (`quad`) its
    first four bytes. Writes of LOADs pass a cycle later: there is one register for both. An
    entry's unused bit is anything.

    Members
    -------
    valid: strobe. zero: bytes that count as 0. place: where to.
    height, slots: words and slots of a digit plane.
    loaded: a LOAD's writes, never in the cycle after `valid`. weights: all writes.
    busy: `valid` was 1 in the last cycle.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "valid": In(1),
                "quad": In(1),
                "octet": In(data.ArrayLayout(8, config.group)),
                "zero": In(config.group),
                "place": In(place_layout(config)),
                "height": In(range(SLOTS + 1)),
                "slots": In(range(SLOTS)),
                "loaded": In(WeightWrite(config)),
                "weights": Out(WeightWrite(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        place, loaded = self.place, self.loaded
        octet = data_register(self.octet.shape(), "octet_now")
        column = data_register(weight_address(self._config), "column")
        word = data_register(place.word.shape(), "word")
        first_slot = data_register(place.slot.shape(), "first_slot")
        array, first, plane = (
            data_register(place[name].shape(), f"{name}_now")
            for name in ("array", "first", "plane")
        )
        # bytes, sums of two
        m.d.sync += [
            self.busy.eq(self.valid),
            octet.eq(self.octet),
            column.eq(place.column + place.head),
            word.eq(place.word + Mux(place.plane, self.height, 0)),
            first_slot.eq(place.slot + place.word),
            array.eq(place.array),
            first.eq(place.first),
            plane.eq(place.plane),
        ]
        for byte, zero in zip(octet, self.zero, strict=True):
            with m.If(zero):
                m.d.sync += byte.eq(0)
        # digits, sums of three
        slot = Signal(place.slot.shape())
        m.d.comb += slot.eq(first_slot + Mux(plane, self.slots, 0))
        written = {
            name: data_output(m, getattr(self.weights, name), f"weights_{name}")
            for name in ("array", "address", "first", "count", "quads")
        }
        m.d.sync += self.weights.valid.eq(self.busy | loaded.valid)
        m.d.sync += [register.eq(getattr(loaded, name)) for name, register in written.items()]
        with m.If(self.busy):
            m.d.sync += [
                written["array"].eq(array),
                written["address"].eq((column + word)[: len(column)]),
                written["first"].eq(first),
                written["count"].eq(Mux(self.quad, 1, self._config.group // QUAD_LANES)),
            ]
            for i, byte in enumerate(octet):
                quad = written["quads"][i // QUAD_LANES]
                entry = struct(ENTRY)(quad.word_select(i % QUAD_LANES, ENTRY.width)[:ENTRY_BITS])
                m.d.sync += [entry.digit.eq(digit(byte, plane)), entry.slot.eq(slot)]
        return m
