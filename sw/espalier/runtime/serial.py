"""The device `serial`: any board with a serial link (spec.link), `espalier.open("serial:PATH")`."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import DeviceError
from ..spec import registers
from ..spec.config import BEAT_BYTES, Config
from ..spec.link import MOST_PAYLOAD_BYTES, REGISTER_BYTES, Command
from ..spec.registers import COUNTERS, Status
from .serial_port import SerialPort, check_baud
from .serial_requests import Requests

BAUD = 3_000_000
"""The most that the ULX3S's FT231X does."""
ANSWER_S = 0.25
RETRIES = 12
POLL_S = 0.001
FIRST_COUNTER = registers.address(f"{next(iter(COUNTERS)).upper()}_LOW")
COUNTER_BYTES = 2 * REGISTER_BYTES * len(COUNTERS)


class SerialTransport:
    """A board at the end of a serial line; see `espalier.runtime.transport.Transport`.

    A request takes a millisecond or two whatever its size, so it is asked for as little as
    possible: settings go out together before the next access of another kind, and all counters come
    in one answer, which is kept until the next command.
    """

    def __init__(self, config: Config, path: str, *, baud: int, answer_s: float, retries: int):
        self.config = config
        self._port = SerialPort(path, baud)
        try:
            self._requests = Requests(self._port, baud=baud, answer_s=answer_s, retries=retries)
        except BaseException:
            self._port.close()
            raise
        self.window_base = self._requests.greeting["memory_base"]
        self.window_bytes = self._requests.greeting["memory_bytes"]
        self._settings: dict[int, int] = {}
        self._counters: bytes | None = None
        self._closed = False

    @property
    def repeats(self) -> int:
        """Requests that were sent again because of damage or silence."""
        return self._requests.repeats

    def read_register(self, name: str) -> int:
        """Value of a register. Raises DeviceError when there is no answer."""
        address = registers.address(name)
        self._flush()
        if FIRST_COUNTER <= address < FIRST_COUNTER + COUNTER_BYTES:
            return self._counter(address - FIRST_COUNTER)
        data = self._requests.read(Command.READ_REGISTERS, address, REGISTER_BYTES)
        return int.from_bytes(data, "little")

    def _counter(self, offset: int) -> int:
        if self._counters is None:
            self._counters = self._requests.read(
                Command.READ_REGISTERS, FIRST_COUNTER, COUNTER_BYTES
            )
        return int.from_bytes(self._counters[offset : offset + REGISTER_BYTES], "little")

    def write_register(self, name: str, value: int) -> None:
        """Write a register: CONTROL at once, settings before the next access of another kind.

        Raises DeviceError when there is no answer.
        """
        self._open()
        address, value = registers.address(name), value & 0xFFFF_FFFF
        if name != "CONTROL":
            self._settings[address] = value
            return
        self._flush()
        self._counters = None
        data = value.to_bytes(REGISTER_BYTES, "little")
        self._requests.write(Command.WRITE_REGISTERS, address, data)

    def _flush(self) -> None:
        """Write the settings that wait, each run of neighbours at once."""
        self._open()
        run, first, last = b"", 0, 0
        for address in sorted(self._settings):
            if run and address != last + REGISTER_BYTES:
                self._requests.write(Command.WRITE_REGISTERS, first, run)
                run = b""
            first, last = first if run else address, address
            run += self._settings[address].to_bytes(REGISTER_BYTES, "little")
        if run:
            self._requests.write(Command.WRITE_REGISTERS, first, run)
        self._settings.clear()

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the window. Raises ValueError outside of it."""
        self._inside(offset, size)
        self._flush()
        first, end = offset - offset % BEAT_BYTES, offset + size
        parts = []
        for at in range(first, end, MOST_PAYLOAD_BYTES):
            beats = -(-min(end - at, MOST_PAYLOAD_BYTES) // BEAT_BYTES)
            parts.append(self._requests.read(Command.READ_MEMORY, at, beats * BEAT_BYTES))
        return b"".join(parts)[offset - first :][:size]

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of the window; a beat that is changed in part is read before.

        Raises ValueError outside of the window.
        """
        content = bytes(memoryview(data).cast("B"))
        self._inside(offset, len(content))
        if not content:
            return
        head, tail = offset % BEAT_BYTES, -(offset + len(content)) % BEAT_BYTES
        if head:
            content = self.read(offset - head, head) + content
        if tail:
            content += self.read(offset - head + len(content), tail)
        self._flush()
        for at in range(0, len(content), MOST_PAYLOAD_BYTES):
            part = content[at : at + MOST_PAYLOAD_BYTES]
            self._requests.write(Command.WRITE_MEMORY, offset - head + at, part)

    def _inside(self, offset: int, size: int) -> None:
        self._open()
        if offset < 0 or size < 0 or offset + size > self.window_bytes:
            raise ValueError(
                f"window access must lie in 0..{self.window_bytes}, not {offset}..{offset + size}"
            )

    def wait(self, timeout_s: float) -> None:
        """Ask for STATUS until it is not BUSY. Raises DeviceError after `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        while self.read_register("STATUS") & Status.BUSY:
            if time.monotonic() > end:
                raise DeviceError(
                    f"{self._port.path}: the accelerator was still busy after {timeout_s} s; wait "
                    "longer or set WATCHDOG"
                )
            time.sleep(POLL_S)

    def close(self) -> None:
        """Give the port back."""
        self._closed = True
        self._port.close()

    def _open(self) -> None:
        if self._closed:
            raise DeviceError("this device was closed; open it again")


def open_serial(
    path: str, *, baud: int = BAUD, answer_s: float = ANSWER_S, retries: int = RETRIES
) -> Callable[[Config], SerialTransport]:
    """Entry point `serial`: a function that opens the board at the serial port `path`.

    Parameters
    ----------
    path: of the port, such as /dev/ttyUSB0.
    baud: the rate that the bitstream was built for.
    answer_s: patience for each answer, beside the time that it takes on the line.
    retries: how often a request that was not answered whole is sent again.

    Raises
    ------
    DeviceError: an option is out of range; or later, no port or no answer.
    """
    check_baud(baud)
    if not 0 < answer_s <= 3600:
        raise DeviceError(f"answer_s must be above 0 and at most 3600, not {answer_s}")
    if not 0 <= retries <= 1000:
        raise DeviceError(f"retries must be 0..1000, not {retries}")
    return lambda config: SerialTransport(
        config, path, baud=baud, answer_s=answer_s, retries=retries
    )
