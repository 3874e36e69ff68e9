"""What a request on the serial link does (spec.link): check, execute, answer."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from espalier.spec import link
from espalier.spec.link import Command, Status

from ..interfaces import BEAT_BITS, struct
from .serial_bus import ACCESS, RESULT, WORD_BITS
from .serial_frames import FRAME, REQUEST

LENGTH = range(link.MOST_PAYLOAD_BYTES + 1)
GREETING = struct(link.GREETING)
BEAT_BYTES = BEAT_BITS // 8
STATUS_BITS = max(Status).bit_length()
assert GREETING.size == BEAT_BITS


class Requests(Component):
    """Executes frames one by one, and answers each with one reply.

    A frame is kept until its payload is written; the next one is looked at when the reply has left.
    A write that repeats the last request's sequence number is answered, not executed. Reads go out
    as they come from the bus, unit by unit, the status after them; a write stops at a bus error.

    Members
    -------
    frames: requests as they arrived, damaged ones included. address, payload: into the frame's
        payload, one cycle of latency. accesses, results: the buses. reply: bytes of the reply.
    """

    def __init__(self, *, memory_bytes: int, memory_base: int = 0):
        self._memory_base, self._memory_bytes = memory_base, memory_bytes
        super().__init__(
            {
                "frames": In(stream.Signature(FRAME)),
                "address": Out(range(link.MOST_PAYLOAD_BYTES)),
                "payload": In(8),
                "accesses": Out(stream.Signature(ACCESS)),
                "results": In(stream.Signature(RESULT)),
                "reply": Out(stream.Signature(data.StructLayout({"byte": 8, "last": 1}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._request = Signal(REQUEST)
        self._status = Signal(STATUS_BITS)
        self._word = Signal(BEAT_BITS)
        self._position, self._reply_bytes = Signal(LENGTH), Signal(LENGTH)
        self._step = Signal(range(BEAT_BYTES + 1))
        self._executed = Signal(data.StructLayout({"any": 1, "sequence": 8, "status": STATUS_BITS}))
        command = self._request.command
        self._memory = (command == Command.READ_MEMORY) | (command == Command.WRITE_MEMORY)
        self._write = Cat(command == choice for choice in link.WRITES).any()
        self._hello = command == Command.HELLO
        self._unit = Mux(self._memory | self._hello, BEAT_BYTES, link.REGISTER_BYTES)
        with m.FSM():
            self._check(m)
            self._execute(m)
            self._answer(m)
        return m

    def _check(self, m: Module) -> None:
        request, frame = self._request, self.frames.payload
        whole = Signal()
        payload_bytes = Signal.like(frame.payload_bytes)
        malformed, outside = Signal(), Signal()
        end = Signal(len(request.address) + 1)
        with m.State("WAIT"):
            m.d.sync += [
                request.eq(frame.header),
                whole.eq(frame.whole),
                payload_bytes.eq(frame.payload_bytes),
                self._position.eq(0),
            ]
            with m.If(self.frames.valid):
                m.next = "CHECK"
        with m.State("CHECK"):
            m.d.sync += [
                malformed.eq(self._malformed(payload_bytes)),
                end.eq(request.address + request.length),
            ]
            m.next = "LIMIT"
        with m.State("LIMIT"):
            limit = Mux(self._memory, self._memory_bytes, link.REGISTERS_END)
            m.d.sync += outside.eq(~self._hello & (end > limit))
            m.next = "DECIDE"
        with m.State("DECIDE"):
            self._decide(m, whole, malformed, outside)

    def _malformed(self, payload_bytes: Value) -> Value:
        request = self._request
        unaligned = (request.address[:2] | request.length[:2]).any() | (
            self._memory & (request.address[2:4] | request.length[2:4]).any()
        )
        size = (request.length == 0) | (request.length > link.MOST_PAYLOAD_BYTES) | unaligned
        return (
            (request.command > max(Command))
            | Mux(self._hello, request.length != 0, size)
            | (payload_bytes != Mux(self._write, request.length, 0))
        )

    def _decide(self, m: Module, whole: Value, malformed: Value, outside: Value) -> None:
        executed, request = self._executed, self._request
        repeated = executed.any & (executed.sequence == request.sequence) & self._write
        greeting = {
            "version": link.VERSION,
            "most_payload": link.MOST_PAYLOAD_BYTES,
            "nonce": request.address,
            "memory_base": self._memory_base,
            "memory_bytes": self._memory_bytes,
        }
        m.d.sync += [
            self._status.eq(Status.OK),
            self._reply_bytes.eq(0),
            self._step.eq(self._unit),
            *(GREETING(self._word)[name].eq(value) for name, value in greeting.items()),
        ]
        m.next = "RELEASE"
        with m.If(~whole):
            m.d.sync += self._status.eq(Status.DAMAGED)
        with m.Elif(malformed):
            m.d.sync += self._status.eq(Status.MALFORMED)
        with m.Elif(outside):
            m.d.sync += self._status.eq(Status.OUTSIDE)
        with m.Elif(repeated):
            m.d.sync += self._status.eq(executed.status)
        with m.Else():
            m.d.sync += [executed.any.eq(1), executed.sequence.eq(request.sequence)]
            with m.If(self._write):
                m.next = "FETCH"
            with m.Elif(self._hello):
                m.d.sync += self._reply_bytes.eq(BEAT_BYTES)
            with m.Else():
                m.d.sync += self._reply_bytes.eq(request.length)

    def _execute(self, m: Module) -> None:
        request, access, result = self._request, self.accesses.payload, self.results.payload
        wide = self._memory
        m.d.comb += [
            self.address.eq(self._position),
            access.write.eq(self._write),
            access.memory.eq(wide),
            access.address.eq(request.address + Mux(wide, self._memory_base, 0)),
            access.data.eq(Mux(wide, self._word, self._word[-WORD_BITS:])),
        ]
        with m.State("FETCH"):
            m.next = "KEEP"
        with m.State("KEEP"):
            m.d.sync += self._word.eq(Cat(self._word[8:], self.payload))
            self._count(m)
            m.next = "FETCH"
            with m.If(self._step == 1):
                m.next = "ACCESS"
        with m.State("ACCESS"):
            m.d.comb += self.accesses.valid.eq(1)
            with m.If(self.accesses.ready):
                m.next = "RESULT"
        with m.State("RESULT"):
            m.d.comb += self.results.ready.eq(1)
            with m.If(self.results.valid):
                m.d.sync += [
                    self._word.eq(result.data),
                    request.address.eq(request.address + self._unit),
                    self._step.eq(self._unit),
                ]
                with m.If(result.error):
                    m.d.sync += self._status.eq(Status.BUS_ERROR)
                m.next = "SEND"
                with m.If(self._write):
                    m.next = "FETCH"
                    with m.If((self._position == request.length) | result.error):
                        m.d.sync += self._executed.status.eq(
                            Mux(result.error, Status.BUS_ERROR, Status.OK)
                        )
                        m.next = "RELEASE"

    def _count(self, m: Module) -> None:
        m.d.sync += [self._position.eq(self._position + 1), self._step.eq(self._step - 1)]

    def _answer(self, m: Module) -> None:
        request, reply = self._request, self.reply
        header = Signal(8 * link.REPLY_BYTES)
        which = Signal(range(link.REPLY_BYTES))
        m.d.comb += header.eq(
            Cat(request.sequence, request.command | link.REPLY, self._reply_bytes)
        )
        with m.State("RELEASE"):
            m.d.comb += self.frames.ready.eq(1)
            m.next = "HEADER"
        with m.State("HEADER"):
            m.d.comb += [reply.valid.eq(1), reply.payload.byte.eq(header.word_select(which, 8))]
            with m.If(reply.ready):
                m.d.sync += which.eq(which + 1)
                with m.If(which == link.REPLY_BYTES - 1):
                    m.next = "STATUS"
                    with m.If(self._reply_bytes != 0):
                        m.next = "ACCESS"
                        with m.If(self._hello):
                            m.next = "SEND"
        with m.State("SEND"):
            m.d.comb += [reply.valid.eq(1), reply.payload.byte.eq(self._word[:8])]
            with m.If(reply.ready):
                m.d.sync += self._word.eq(self._word >> 8)
                self._count(m)
                with m.If(self._step == 1):
                    m.next = "ACCESS"
                    with m.If(self._position == self._reply_bytes - 1):
                        m.next = "STATUS"
        with m.State("STATUS"):
            m.d.comb += [
                reply.valid.eq(1),
                reply.payload.byte.eq(self._status),
                reply.payload.last.eq(1),
            ]
            with m.If(reply.ready):
                m.next = "WAIT"
