"""One array of the column engine: a feeder, its weight banks and L lanes on the same column."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from espalier.spec.config import ACCUMULATOR_BITS, COLUMN_BITS, SLOTS, Config
from espalier.spec.memory import ENTRY

from .chip import is_ecp5
from .cursor import product_layout
from .datapath import KEEP
from .feeder import Feeder
from .group_memories import group_write
from .lane import CLEAR_DELAY, LANE_LATENCY, Lane
from .weights import WeightBank, bank_depths, part_of, quad_writes

LANES_PER_REGISTER = 16
"""Lanes that share one register of the broadcast column input: wider nets limit the clock."""
DSP_LANES = 6
"""Lanes of every array that multiply in DSP blocks, three in one: the vector unit leaves some. None
on an ECP5, which has one in a multiplier: lanes drawn to those columns cannot be routed."""
ENTRY_LATENCY = 2
"""Cycles from a weight address to the entry at the lane: block RAM, then a register."""
OPERATION_LATENCY = ENTRY_LATENCY + LANE_LATENCY
"""Cycles from a slot operation to `drained`."""


def operation_layout(config: Config) -> data.StructLayout:
    """If `valid`: read `slot`; the lanes of chunk i (V·i ..) keep what they read and clear it where
    `clear[i]`. In any case: put out what the lanes of chunk `select` have kept.
    """
    chunks = config.slot_chunks
    return data.StructLayout({
        "valid": 1, "slot": range(SLOTS), "clear": chunks, "select": range(max(chunks, 2)),
    })


class ColumnArray(wiring.Component):
    """slots[s] += digit·x over this array's columns, in all lanes for one weight word a cycle.

    An operation takes the cycle from the feeder and goes through the lanes like a word: it sees
    every word issued before it and none after it. `drained` follows `select` by
    `OPERATION_LATENCY` cycles; a chunk cleared with an earlier operation can still be selected as
    long as no other operation has cleared one.

    Members
    -------
    quads, write: what the loader and the vector unit write.
    done: pulse, one cycle after a product's last word. word, visits, skipped: events.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "command": In(stream.Signature(product_layout(config))),
            "quads": In(quad_writes(config)),
            "write": In(group_write(config)),
            "operation": In(operation_layout(config)),
            "drained": Out(data.ArrayLayout(signed(ACCUMULATOR_BITS), config.vector_lanes)),
            "done": Out(1),
            "word": Out(1),
            "visits": Out(range(2 * config.group + 1)),
            "skipped": Out(range(config.group + 1)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.feeder = feeder = Feeder(self._config)
        connect(m, flipped(self.command), feeder.command)
        m.d.comb += [
            feeder.write.eq(self.write),
            feeder.hold.eq(self.operation.valid),
            self.done.eq(feeder.done),
            self.word.eq(feeder.word),
            self.visits.eq(feeder.visits),
            self.skipped.eq(feeder.skipped),
        ]
        x, clear = self._broadcast(m, feeder), self._clear(m)
        lanes, multipliers = [], 0 if is_ecp5(platform) else DSP_LANES
        for i, (digit, slot) in enumerate(self._entries(m, feeder.address)):
            m.submodules[f"lane_{i}"] = lane = Lane(multiplier=i < multipliers)
            m.d.comb += [
                lane.digit.eq(digit),
                lane.slot.eq(slot),
                lane.x.eq(x[i // LANES_PER_REGISTER]),
                lane.clear.eq(clear[i // self._config.vector_lanes]),
            ]
            lanes.append(lane)
        select = self._select(m)
        for v in range(self._config.vector_lanes):
            kept = Array(lane.drained for lane in lanes[v :: self._config.vector_lanes])
            m.d.comb += self.drained[v].eq(kept[select])
        return m

    def _entries(self, m: Module, address: Value) -> list[tuple[Value, Value]]:
        """Digit and slot for each lane, `ENTRY_LATENCY` cycles after the address.

        An operation replaces the slot.
        """
        depths = bank_depths(self._config.weight_depth)
        digit_bits = ENTRY.fields[0].width
        part = Signal(range(max(len(depths), 2)), reset_less=True)
        operation = Signal.like(self.operation, reset_less=True, attrs=KEEP)
        m.d.sync += [part.eq(part_of(depths, address)), operation.eq(self.operation)]
        entries = []
        for q in range(self._config.lanes // 4):
            m.submodules[f"bank_{q}"] = bank = WeightBank(self._config)
            m.d.comb += [bank.write.eq(self.quads[q]), bank.address.eq(address)]
            word = bank.data[-1]
            for p in reversed(range(len(depths) - 1)):
                word = Mux(part == p, bank.data[p], word)
            for i in range(4):
                entry = word.word_select(i, ENTRY.width)
                digit = Signal(digit_bits, name=f"digit_{4 * q + i}", reset_less=True)
                slot = Signal(range(SLOTS), name=f"slot_{4 * q + i}", reset_less=True)
                m.d.sync += [
                    digit.eq(entry[:digit_bits]),
                    slot.eq(Mux(operation.valid, operation.slot, entry[digit_bits:])),
                ]
                entries.append((digit, slot))
        return entries

    def _broadcast(self, m: Module, feeder: Feeder) -> list[Value]:
        """The column input beside the entries, a register for every few lanes; 0 without a word."""
        x = Signal(signed(COLUMN_BITS), reset_less=True)
        m.d.sync += x.eq(Mux(feeder.word, feeder.x, 0))
        copies = []
        for i in range(-(-self._config.lanes // LANES_PER_REGISTER)):
            copy = Signal(signed(COLUMN_BITS), name=f"x_{i}", reset_less=True, attrs=KEEP)
            m.d.sync += copy.eq(x)
            copies.append(copy)
        return copies

    def _select(self, m: Module) -> Value:
        """The chunk to put out, when the lanes have kept it."""
        select = self.operation.select
        for stage in range(OPERATION_LATENCY):
            # every array has its own last one, or one register of all would drive all outputs
            own = KEEP if stage == OPERATION_LATENCY - 1 else {}
            later = Signal.like(select, name=f"select_{stage}", reset_less=True, attrs=own)
            m.d.sync += later.eq(select)
            select = later
        return select

    def _clear(self, m: Module) -> Value:
        """The operation's chunks, when it is at the slots."""
        clear = Mux(self.operation.valid, self.operation.clear, 0)
        for stage in range(ENTRY_LATENCY + CLEAR_DELAY):
            later = Signal(self._config.slot_chunks, name=f"clear_{stage}", attrs=KEEP)
            m.d.sync += later.eq(clear)
            clear = later
        return clear
