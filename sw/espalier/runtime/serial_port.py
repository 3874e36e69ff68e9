"""A serial port of the operating system: raw bytes, one owner, reads that end."""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
import time

from ..errors import DeviceError

_RATES = {
    int(name[1:]): getattr(termios, name)
    for name in dir(termios)
    if name.startswith("B") and name[1:].isdigit() and name != "B0"
}
TIOCGSERIAL, TIOCSSERIAL = 0x541E, 0x541F
SERIAL_STRUCT_WORDS, FLAGS_WORD, LOW_LATENCY = 18, 4, 0x2000
"""Linux's `struct serial_struct` in 32-bit words, room to spare; ASYNC_LOW_LATENCY of its flags.
Source: linux/serial.h, linux/tty_flags.h."""
CHUNK_BYTES = 4096


def check_baud(baud: int) -> None:
    """Raise DeviceError unless the operating system knows the rate."""
    if baud not in _RATES:
        near = sorted(_RATES, key=lambda rate: abs(rate - baud))[:3]
        raise DeviceError(
            f"baud must be a rate of this system's serial ports, not {baud}; nearest: "
            f"{', '.join(str(rate) for rate in sorted(near))}"
        )


class SerialPort:
    """The port at `path`, for this process alone, until `close`.

    Raises
    ------
    DeviceError: no such port, no permission, not a serial port, or another process has it.
    """

    def __init__(self, path: str, baud: int):
        check_baud(baud)
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(f"{path}: {_advice(error)}") from error
        try:
            self._lock()
            self._set_up(baud)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DeviceError(
                f"{self.path}: another process uses this serial port; close it there first"
            ) from error

    def _set_up(self, baud: int) -> None:
        """8N1, no translation, no flow control; whatever waits in either direction is dropped."""
        rate = _RATES[baud]
        flags = termios.CS8 | termios.CREAD | termios.CLOCAL
        try:
            control = termios.tcgetattr(self._file)[6]
            control[termios.VMIN], control[termios.VTIME] = 0, 0
            termios.tcsetattr(self._file, termios.TCSANOW, [0, 0, flags, 0, rate, rate, control])
        except termios.error as error:
            raise DeviceError(
                f"{self.path}: is not a serial port at {baud} baud ({error})"
            ) from error
        self._lower_latency()
        termios.tcflush(self._file, termios.TCIOFLUSH)

    def _lower_latency(self) -> None:
        """USB serial chips hold short answers back for 16 ms unless asked not to; a port that
        cannot be asked is as good."""
        settings = array.array("I", [0] * SERIAL_STRUCT_WORDS)
        try:
            fcntl.ioctl(self._file, TIOCGSERIAL, settings)
            settings[FLAGS_WORD] |= LOW_LATENCY
            fcntl.ioctl(self._file, TIOCSSERIAL, settings)
        except OSError:
            pass

    def write(self, data: bytes, timeout_s: float) -> None:
        """Hand over all of `data`. Raises DeviceError when the port does not take it in time, or is
        gone."""
        end, view = time.monotonic() + timeout_s, memoryview(data)
        while view:
            left = max(0.0, end - time.monotonic())
            if not select.select([], [self._file], [], left)[1]:
                raise DeviceError(f"{self.path}: the serial port takes no data for {timeout_s} s")
            try:
                view = view[os.write(self._file, view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error) from error

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, waiting up to `timeout_s` for the first byte; empty when nothing does.

        Raises DeviceError when the port is gone.
        """
        if not select.select([self._file], [], [], max(0.0, timeout_s))[0]:
            return b""
        try:
            data = os.read(self._file, CHUNK_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone("end of file")
        return data

    def _gone(self, reason: object) -> DeviceError:
        return DeviceError(
            f"{self.path}: the serial port is gone ({reason}); plug the board in and open it again"
        )

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission; add yourself to the group `dialout` and log in again"
    if isinstance(error, FileNotFoundError):
        return "no such serial port; is the board plugged in?"
    return f"cannot be opened ({error.strerror})"
