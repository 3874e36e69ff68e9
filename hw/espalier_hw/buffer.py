"""The smallest queue: two words in registers between two streams."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Buffer(wiring.Component):
    """Two words deep, one word a cycle, one cycle of latency; `input.ready` and `output.valid` are
    registers.

    Cuts the combinational path of `ready` between two units.
    """

    def __init__(self, shape):
        super().__init__({
            "input": In(stream.Signature(shape)),
            "output": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = Value.cast(self.input.payload).shape()
        first, second = Signal(shape, reset_less=True), Signal(shape, reset_less=True)
        first_valid, second_valid = Signal(), Signal()
        incoming = Value.cast(self.input.payload)
        m.d.comb += [
            self.input.ready.eq(~second_valid),
            self.output.valid.eq(first_valid),
            Value.cast(self.output.payload).eq(first),
        ]
        with m.If(self.output.ready | ~first_valid):
            m.d.sync += [
                first.eq(Mux(second_valid, second, incoming)),
                first_valid.eq(second_valid | self.input.valid),
                second_valid.eq(0),
            ]
        with m.Elif(~second_valid):
            m.d.sync += second_valid.eq(self.input.valid)
        with m.If(~second_valid):
            m.d.sync += second.eq(incoming)
        return m
