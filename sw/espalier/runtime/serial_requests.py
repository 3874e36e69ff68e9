"""Requests over a serial port: one at a time, each until its answer or the end of patience."""

from __future__ import annotations

import os
import time

from ..errors import DeviceError
from ..spec import link
from ..spec.link import Command, Status
from .serial_port import SerialPort

LINE_BITS = 10
"""On the line for each byte."""
DOUBLED = 2
"""Escapes at most double a frame."""


class Requests:
    """The host's end of spec.link on an open port.

    A request without a whole answer is sent again, with the same number, up to `retries` times.
    After that, and when waiting for a write's answer was interrupted, the link is lost: what the
    board did is not known, and every later request raises. The device has to be opened again, which
    starts from what the machine then says of itself.

    Parameters
    ----------
    baud: to know how long a frame is on its way.
    answer_s: patience beyond that for each answer.
    retries: how often a request is sent again.

    Members
    -------
    greeting: what the board said of itself (`link.GREETING`).
    repeats: requests sent again so far.

    Raises
    ------
    DeviceError: nothing answers, or in another version of the protocol.
    """

    def __init__(self, port: SerialPort, *, baud: int, answer_s: float, retries: int):
        self._port, self._baud = port, baud
        self._answer_s, self._retries = answer_s, retries
        self._deframer = link.Deframer()
        self._contents: list[bytes | None] = []
        self._sequence = os.urandom(1)[0]
        self._lost = ""
        self.repeats = 0
        self.greeting = self._greet()

    def _greet(self) -> dict[str, int]:
        nonce = int.from_bytes(os.urandom(4), "little")
        answer = self._ask(Command.HELLO, nonce, 0, b"", link.GREETING.width // 8, nonce)
        greeting = link.GREETING.unpack(int.from_bytes(answer, "little"))
        if greeting["version"] != link.VERSION:
            raise DeviceError(
                f"{self._port.path}: the board speaks version {greeting['version']} of the serial "
                f"link, this package {link.VERSION}; build the bitstream with this package"
            )
        return greeting

    def read(self, command: Command, address: int, size: int) -> bytes:
        """`size` bytes, at most MOST_PAYLOAD_BYTES, in whole units. Raises DeviceError."""
        return self._ask(command, address, size, b"", size)

    def write(self, command: Command, address: int, data: bytes) -> None:
        """Write `data`, at most MOST_PAYLOAD_BYTES, in whole units. Raises DeviceError."""
        self._ask(command, address, len(data), data, 0)

    def _ask(
        self,
        command: Command,
        address: int,
        length: int,
        payload: bytes,
        answer_bytes: int,
        nonce: int | None = None,
    ) -> bytes:
        if self._lost:
            raise DeviceError(self._lost)
        self._sequence = (self._sequence + 1) % 256
        content = link.request(self._sequence, command, address, length, payload)
        answer = None
        try:
            for attempt in range(self._retries + 1):
                self.repeats += attempt > 0
                answer = self._attempt(content, command, answer_bytes, nonce)
                if answer is not None:
                    return self._checked(answer, command, address, length)
        except BaseException as error:
            if answer is None and command in link.WRITES:
                self._lost = (
                    f"{self._port.path}: {command.name} had no answer ({error!r}) and may have "
                    "been executed; open the device again"
                )
            raise
        self._lost = (
            f"{self._port.path}: no answer to {command.name} after {self._retries + 1} attempts; "
            "is the board programmed, at this baud rate? Open it again"
        )
        raise DeviceError(self._lost)

    def _attempt(
        self, content: bytes, command: Command, answer_bytes: int, nonce: int | None
    ) -> tuple[Status, bytes] | None:
        """Send once; status and payload of the answer, or None when it is time to send again."""
        frame = link.framed(content)
        on_the_line = len(frame) + DOUBLED * (answer_bytes + link.REPLY_BYTES + link.CRC_BYTES)
        patience = self._answer_s + on_the_line * LINE_BITS / self._baud
        self._port.write(frame, patience)
        end = time.monotonic() + patience
        while (left := end - time.monotonic()) > 0:
            self._contents.extend(self._deframer.feed(self._port.read(left)))
            while self._contents:
                answer = self._answer(self._contents.pop(0), command, answer_bytes, nonce)
                if answer is None:
                    continue  # damaged, or for an earlier request
                return None if answer[0] is Status.DAMAGED else answer
        return None

    def _answer(
        self, content: bytes | None, command: Command, answer_bytes: int, nonce: int | None
    ) -> tuple[Status, bytes] | None:
        """Status and payload when `content` is the board's answer to this request."""
        if content is None:
            return None
        fields = link.REPLY_HEADER.unpack(int.from_bytes(content[: link.REPLY_BYTES], "little"))
        payload = content[link.REPLY_BYTES : -1]
        status = content[-1]
        if status == Status.DAMAGED:
            return Status.DAMAGED, b""
        wanted = answer_bytes if fields["length"] else 0
        if (
            fields["sequence"] != self._sequence
            or fields["command"] != command | link.REPLY
            or status not in list(Status)
            or not len(payload) == fields["length"] == wanted
            or (status == Status.OK and len(payload) != answer_bytes)
        ):
            return None
        if nonce is not None and payload:
            greeting = link.GREETING.unpack(int.from_bytes(payload, "little"))
            if greeting["nonce"] != nonce:
                return None
        return Status(status), payload

    def _checked(
        self, answer: tuple[Status, bytes], command: Command, address: int, length: int
    ) -> bytes:
        status, payload = answer
        if status is Status.OK:
            return payload
        reason = {
            Status.BUS_ERROR: "the board's bus refused it",
            Status.OUTSIDE: "that lies outside",
        }.get(status, "the board does not know such a request: is it of this package's version?")
        raise DeviceError(
            f"{self._port.path}: {command.name} of {length} bytes at {address:#x}: {reason}"
        )
