"""The serial link: how a host reaches a board's registers and window memory over a UART.

Bytes are 8N1, least significant bit first. A frame is FLAG, body, FLAG, with ESCAPE and the byte
XOR 0x20 in place of a FLAG or ESCAPE inside the body (the framing of RFC 1662), so that whatever
was lost or added before, the next FLAG starts afresh; a FLAG may close one frame and open the
next, and an empty body is no frame. All fields are little-endian; the last four bytes of a body
are the CRC-32 of IEEE 802.3 over those before.

    request   sequence, command, length, address; payload (writes only); CRC
    reply     sequence, command | REPLY, length; payload (reads and HELLO); status; CRC

The host sends one request and waits for its reply. The status comes last, because a read may fail
after its first bytes have gone; the payload counts with status OK alone.

**Damage.** A frame that is too short, too long, or has a wrong CRC is never executed: the board
answers DAMAGED, and the host sends the same request again, as it does when no reply comes in time.
A reply that is damaged, or carries another sequence number or command, is not looked at.

**Retry does no harm.** The board remembers sequence number and status of the request that it
executed last. A write that carries that number again is not executed again, but answered with that
status: a START whose answer was lost starts once. Reads are simply read again. The host counts the
sequence numbers up with each new request, modulo 256. HELLO is executed whatever its number, and
begins the count: its reply repeats the caller's nonce, so that no answer meant for an earlier
process can be taken for it.

Memory addresses are window offsets, accessed in whole beats; registers in whole words.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import IntEnum

from . import registers
from .config import BEAT_BYTES
from .fields import Field, Layout

VERSION = 1
"""Of this contract; HELLO tells it."""
FLAG, ESCAPE, ESCAPED = 0x7E, 0x7D, 0x20
REPLY = 0x80
"""Bit of a reply's command."""
MOST_PAYLOAD_BYTES = 256
"""A whole reply fits the 512-byte buffer of a USB serial chip even when a third is escaped: nothing
is lost while the host is busy elsewhere."""
REGISTER_BYTES = 4
REGISTERS_END = registers.SIZE_BYTES
CRC_BYTES = 4


class Command(IntEnum):
    """What a request asks for."""

    HELLO = 0
    """Who is there: `address` is a nonce, the reply's payload `GREETING`."""
    READ_REGISTERS = 1
    """`length` bytes of registers from byte address `address`."""
    WRITE_REGISTERS = 2
    """The payload to registers, first to last."""
    READ_MEMORY = 3
    """`length` bytes from window offset `address`."""
    WRITE_MEMORY = 4
    """The payload to memory, first to last."""


class Status(IntEnum):
    """What became of a request."""

    OK = 0
    DAMAGED = 1
    """The frame arrived damaged and was not executed; send it again. The other fields mean
    nothing."""
    MALFORMED = 2
    """Unknown command, a length of 0 or more than MOST_PAYLOAD_BYTES, a length that is not the
    payload's, or length or address no multiple of the unit: not executed."""
    OUTSIDE = 3
    """Not all of it lies in the registers or the memory: not executed."""
    BUS_ERROR = 4
    """The board's bus refused an access; those before it were executed."""


REQUEST = Layout(
    "request",
    64,
    (
        Field("sequence", 8, "number of the request"),
        Field("command", 8, "Command"),
        Field("length", 16, "bytes to read or write; 0 for HELLO"),
        Field("address", 32, "register address, window offset, or HELLO's nonce"),
    ),
)
REPLY_HEADER = Layout(
    "reply",
    32,
    (
        Field("sequence", 8, "of the request"),
        Field("command", 8, "of the request, with REPLY set"),
        Field("length", 16, "bytes of payload"),
    ),
)
GREETING = Layout(
    "greeting",
    128,
    (
        Field("version", 16, "VERSION of this contract"),
        Field("most_payload", 16, "MOST_PAYLOAD_BYTES"),
        Field("nonce", 32, "of the request"),
        Field("memory_base", 32, "bus address of window offset 0"),
        Field("memory_bytes", 32, "size of the window memory"),
    ),
)
REQUEST_BYTES, REPLY_BYTES = REQUEST.width // 8, REPLY_HEADER.width // 8
LONGEST_BODY = REQUEST_BYTES + MOST_PAYLOAD_BYTES + CRC_BYTES
"""Of a request; no reply is longer."""
UNIT_BYTES = {
    Command.READ_REGISTERS: REGISTER_BYTES,
    Command.WRITE_REGISTERS: REGISTER_BYTES,
    Command.READ_MEMORY: BEAT_BYTES,
    Command.WRITE_MEMORY: BEAT_BYTES,
}
WRITES = (Command.WRITE_REGISTERS, Command.WRITE_MEMORY)


def framed(content: bytes) -> bytes:
    """The bytes on the line of a body: `content` and its CRC, escaped, between flags."""
    body = content + zlib.crc32(content).to_bytes(CRC_BYTES, "little")
    body = body.replace(bytes([ESCAPE]), bytes([ESCAPE, ESCAPE ^ ESCAPED]))
    body = body.replace(bytes([FLAG]), bytes([ESCAPE, FLAG ^ ESCAPED]))
    return bytes([FLAG]) + body + bytes([FLAG])


def request(
    sequence: int, command: Command, address: int, length: int, payload: bytes = b""
) -> bytes:
    """The content of a request frame. Raises ValueError when a value does not fit its field."""
    values = {"sequence": sequence, "command": command, "length": length, "address": address}
    return REQUEST.pack(values).to_bytes(REQUEST_BYTES, "little") + payload


def reply(sequence: int, command: int, payload: bytes, status: Status) -> bytes:
    """The content of a reply frame to `command`."""
    values = {"sequence": sequence, "command": command | REPLY, "length": len(payload)}
    header = REPLY_HEADER.pack(values).to_bytes(REPLY_BYTES, "little")
    return header + payload + bytes([status])


class Deframer:
    """Bytes from a line to the contents of frames."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._escaped = False
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The content of every frame that `data` completes; None for a damaged one."""
        for byte in data:
            if byte == FLAG:
                if self._body or self._escaped or self._overlong:
                    yield self._content()
                self._body.clear()
                self._escaped = self._overlong = False
            elif byte == ESCAPE:
                self._escaped = True
            elif len(self._body) >= LONGEST_BODY:
                self._overlong = True
            else:
                self._body.append(byte ^ ESCAPED if self._escaped else byte)
                self._escaped = False

    def _content(self) -> bytes | None:
        content, crc = self._body[:-CRC_BYTES], self._body[-CRC_BYTES:]
        whole = len(content) > REPLY_BYTES and not self._escaped and not self._overlong
        if whole and zlib.crc32(content).to_bytes(CRC_BYTES, "little") == crc:
            return bytes(content)
        return None
