"""Frames of the serial link (spec.link) from bytes, and bytes from frames."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from espalier.spec import link

from ..interfaces import struct

REQUEST = struct(link.REQUEST)
FRAME = data.StructLayout(
    {"header": REQUEST, "payload_bytes": range(link.MOST_PAYLOAD_BYTES + 1), "whole": 1}
)
"""A received frame; the header counts when the frame is `whole`: not damaged."""
SHORTEST_BODY = link.REQUEST_BYTES + link.CRC_BYTES


def special(byte: Value) -> Value:
    """Whether `byte` has to be escaped."""
    return (byte == link.FLAG) | (byte == link.ESCAPE)


class FrameReceiver(Component):
    """Takes bytes as they come, undoes escapes, checks length and CRC, and offers each frame.

    The payload stays in a buffer, and bytes that come meanwhile are dropped up to the next flag,
    until the frame is taken. A frame is offered 2 cycles after its closing flag; bytes are at least
    3 cycles apart.

    Members
    -------
    valid, byte: from the line; cannot be refused.
    frame: header and state of each frame, damaged ones included.
    address, payload: a byte of the payload, one cycle after its address.
    """

    valid: In(1)
    byte: In(8)
    frame: Out(stream.Signature(FRAME))
    address: In(range(link.MOST_PAYLOAD_BYTES))
    payload: Out(8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ETHERNET(data_width=8).create()
        frame = self.frame.payload
        count = Signal(range(link.LONGEST_BODY + 1))
        escaped, overlong, skipping, ended = Signal(), Signal(), Signal(), Signal()
        is_flag, heard, body = Signal(), Signal(), Signal()
        byte = Mux(escaped, self.byte ^ link.ESCAPED, self.byte)
        m.d.comb += [
            is_flag.eq(self.valid & (self.byte == link.FLAG)),
            heard.eq(self.valid & ~skipping & ~self.frame.valid),
            body.eq(heard & ~special(self.byte)),
            crc.data.eq(byte),
            crc.valid.eq(body & ~overlong),
        ]
        with m.If(body):
            m.d.sync += escaped.eq(0)
            with m.If(count == link.LONGEST_BODY):
                m.d.sync += overlong.eq(1)
            with m.Else():
                m.d.sync += count.eq(count + 1)
        with m.Elif((self.byte == link.ESCAPE) & heard):
            m.d.sync += escaped.eq(1)
        with m.If(is_flag | (self.valid & self.frame.valid)):
            m.d.sync += skipping.eq(~is_flag)
        begun = (count != 0) | escaped
        m.d.sync += ended.eq(is_flag & begun)
        with m.If(ended):
            m.d.sync += [
                self.frame.valid.eq(1),
                frame.payload_bytes.eq(count - SHORTEST_BODY),
                frame.whole.eq(
                    crc.match_detected & ~escaped & ~overlong & (count >= SHORTEST_BODY)
                ),
            ]
        with m.If(ended | (is_flag & ~begun)):
            m.d.comb += crc.start.eq(1)
            m.d.sync += [count.eq(0), escaped.eq(0), overlong.eq(0)]
        with m.If(self.frame.valid & self.frame.ready):
            m.d.sync += self.frame.valid.eq(0)
        self._keep(m, body & ~overlong, count, byte)
        return m

    def _keep(self, m: Module, enable: Value, count: Value, byte: Value) -> None:
        """The first bytes of a body are the header, those after it lie in the buffer."""
        header = self.frame.payload.header.as_value()
        in_header = count < link.REQUEST_BYTES
        m.submodules.buffer = buffer = Memory(
            shape=8, depth=link.MOST_PAYLOAD_BYTES, init=[], attrs={"ram_style": "block"}
        )
        write, read = buffer.write_port(), buffer.read_port()
        with m.If(enable & in_header):
            m.d.sync += header.eq(Cat(header[8:], byte))
        m.d.comb += [
            write.addr.eq(count - link.REQUEST_BYTES),
            write.data.eq(byte),
            write.en.eq(enable & ~in_header & (count < link.REQUEST_BYTES + len(buffer.init))),
            read.addr.eq(self.address),
            self.payload.eq(read.data),
        ]


class FrameSender(Component):
    """Sends what comes up to `last` as one frame: flag, escaped bytes and CRC, flag."""

    input: In(stream.Signature(data.StructLayout({"byte": 8, "last": 1})))
    output: Out(stream.Signature(8))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ETHERNET(data_width=8).create()
        output, input = self.output, self.input
        escaped, which = Signal(), Signal(range(link.CRC_BYTES))
        raw, wanted, taken = Signal(8), Signal(), Signal()
        m.d.comb += [crc.data.eq(input.payload.byte), crc.valid.eq(input.valid & input.ready)]
        with m.If(wanted):
            m.d.comb += [
                output.valid.eq(1),
                output.payload.eq(Mux(special(raw), link.ESCAPE, raw)),
                taken.eq(output.ready & (escaped | ~special(raw))),
            ]
            with m.If(escaped):
                m.d.comb += output.payload.eq(raw ^ link.ESCAPED)
            with m.If(output.ready):
                m.d.sync += escaped.eq(special(raw) & ~escaped)
        with m.FSM():
            with m.State("OPEN"):
                m.d.comb += [
                    output.valid.eq(input.valid),
                    output.payload.eq(link.FLAG),
                    crc.start.eq(1),
                ]
                with m.If(input.valid & output.ready):
                    m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [raw.eq(input.payload.byte), wanted.eq(input.valid)]
                m.d.comb += input.ready.eq(taken)
                with m.If(taken & input.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [raw.eq(crc.crc.word_select(which, 8)), wanted.eq(1)]
                with m.If(taken):
                    m.d.sync += which.eq(which + 1)
                    with m.If(which == link.CRC_BYTES - 1):
                        m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [output.valid.eq(1), output.payload.eq(link.FLAG)]
                with m.If(output.ready):
                    m.next = "OPEN"
        return m
