"""From "so many units from here on" to AXI4 bursts inside the window."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from espalier.spec.registers import Fault

from .interfaces import ADDRESS_BITS, GAP_BITS

BURST_BEATS = 16
"""Longest burst."""
IN_FLIGHT = 8
"""Bursts that a bus master has asked for and not seen the end of, at most."""

BURST = data.StructLayout(
    {
        "offset": ADDRESS_BITS,
        "address": ADDRESS_BITS,
        "beats": range(BURST_BEATS + 1),
        "last": 1,
        "second": 1,
    }
)
"""One burst: window offset, bus address, beats; `last` of its request; `second` as its request."""


def request_layout(unit_bits: int) -> data.StructLayout:
    """A run of `units` in DDR, `packing` of them a beat, from `ddr` or (`follow`) `gap` beats
    behind where the last run ended. Those that are `second` follow each other, and so do the
    others.
    """
    shapes = {"follow": 1, "ddr": ADDRESS_BITS, "units": unit_bits, "packing": 2, "gap": GAP_BITS}
    return data.StructLayout({**shapes, "second": 1})


class FaultReport(Signature):
    """Why a bus master stopped: `spec.registers.Fault` and the burst's window offset; held until
    reset.
    """

    def __init__(self) -> None:
        super().__init__({"valid": Out(1), "cause": Out(3), "address": Out(ADDRESS_BITS)})


class BurstPlanner(Component):
    """Cuts requests into bursts of at most 16 beats that cross no 4 KiB boundary.

    Every burst is checked by itself: its offset must be a multiple of 16 and its end within
    `window_size`; a burst that fails is not offered, `fault` goes up and the planner stays there
    until reset. The window starts on a page, so that offsets and bus addresses cross pages
    together.

    One burst takes 4 cycles (size, end, check, offer) and a request two more: full-length bursts
    keep a bus of one beat a cycle busy four times over.

    Parameters
    ----------
    unit_bits: width of a request's unit count (at least 1 unit is asked for).
    packings: numbers of units in a beat that requests use, of 1, 2 and 3.
    """

    def __init__(self, unit_bits: int, packings: tuple[int, ...]):
        self._packings = sorted(set(packings))
        super().__init__(
            {
                "requests": In(stream.Signature(request_layout(unit_bits))),
                "bursts": Out(stream.Signature(BURST)),
                "fault": Out(FaultReport()),
                "window_base": In(ADDRESS_BITS),
                "window_size": In(ADDRESS_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        request, burst = self.requests.payload, self.bursts.payload
        offset, second = Signal(ADDRESS_BITS), Signal()
        ends = [Signal(ADDRESS_BITS, name=f"end_{channel}") for channel in range(2)]
        left = Signal.like(request.units)
        packing = Signal.like(request.packing)
        needed, held = self._beats(m, left, packing, burst.beats)
        units, enough = Signal.like(held), Signal.like(needed)
        room = Signal(range(BURST_BEATS + 1))
        end = Signal(ADDRESS_BITS + 1)
        m.d.comb += [
            room.eq(Mux(offset[8:12].all(), BURST_BEATS - offset[4:8], BURST_BEATS)),
            burst.offset.eq(offset),
            burst.second.eq(second),
            self.fault.cause.eq(Fault.OUTSIDE_WINDOW),
            self.fault.address.eq(offset),
        ]
        m.d.sync += enough.eq(needed)
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.requests.ready.eq(1)
                m.d.sync += [
                    left.eq(request.units),
                    packing.eq(request.packing),
                    second.eq(request.second),
                ]
                with m.If(self.requests.valid):
                    before = Mux(request.second, ends[1], ends[0])
                    m.d.sync += offset.eq(before + (request.gap << 4))
                    with m.If(~request.follow):
                        m.d.sync += offset.eq(request.ddr)
                    m.next = "NEED"
            with m.State("NEED"):
                m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += burst.beats.eq(Mux(room < enough, room, enough))
                m.next = "END"
            with m.State("END"):
                m.d.sync += [
                    burst.address.eq(self.window_base + offset),
                    end.eq(offset + (burst.beats << 4)),
                    units.eq(held),
                ]
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [burst.last.eq(left <= units), left.eq(left - units)]
                m.next = "OFFER"
                with m.If(offset[:4].any() | (end > self.window_size)):
                    m.next = "OUTSIDE"
            with m.State("OFFER"):
                m.d.comb += self.bursts.valid.eq(1)
                with m.If(self.bursts.ready):
                    m.d.sync += offset.eq(end)
                    for channel, last_end in enumerate(ends):
                        with m.If(second == channel):
                            m.d.sync += last_end.eq(end)
                    m.next = "SIZE"
                    with m.If(burst.last):
                        m.next = "TAKE"
            with m.State("OUTSIDE"):
                m.d.comb += self.fault.valid.eq(1)
        return m

    def _beats(self, m, left, packing, beats):
        """(beats that `left` units need, at most 16; units that `beats` beats hold)."""
        needed = Signal(range(BURST_BEATS + 1))
        units = Signal(range(3 * BURST_BEATS + 1))
        with m.Switch(packing):
            for number in self._packings:
                full = number * BURST_BEATS
                table = Array(-(-count // number) for count in range(64))
                with m.Case(number):
                    m.d.comb += units.eq(sum(beats << i for i in (0, 1) if number >> i & 1))
                    m.d.comb += needed.eq(Mux(left >= full, BURST_BEATS, table[left[:6]]))
        return needed, units
