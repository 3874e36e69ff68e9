"""Devices: found by entry point, opened by name, loaded with programs."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import DeviceError
from ..program import Program
from .driver import Driver
from .session import Session
from .token_session import TokenSession
from .transport import Opener, Transport

GROUP = "espalier.devices"


def names() -> list[str]:
    """Names of all installed devices."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def options_of(name: str) -> list[str]:
    """Names of the options that `open(name, ...)` takes. Raises DeviceError for an unknown
    device."""
    return list(inspect.signature(_load(_find(name))).parameters)


def text_option(name: str) -> str | None:
    """The option that takes what follows a colon in `open("name:text")`: the device's first one,
    where that is text. Raises DeviceError for an unknown device."""
    first = next(iter(inspect.signature(_load(_find(name))).parameters.values()), None)
    return first.name if first is not None and first.annotation in (str, "str") else None


def open(name: str = "reference", **options: Any) -> Device:
    """The device called `name`; use it as a context manager, or call `close`.

    Options belong to the device (`espalier devices` lists them). Some devices take their first
    option after a colon as well: `open("serial:/dev/ttyUSB0")`. Nothing is built or touched before
    the first program is loaded, because the program names the configuration.

    Raises
    ------
    DeviceError: no such device (the message lists those that are installed), an option that it does
        not have, lacks or is given twice, or one that is impossible.
    """
    return Device(name, opener_of(name, **options))


def opener_of(name: str, **options: Any) -> Opener:
    """What opens the transport of the device called `name`. Raises as `open` does."""
    kind, colon, text = name.partition(":")
    function = _load(_find(kind))
    known = ", ".join(inspect.signature(function).parameters) or "none"
    if colon:
        first = text_option(kind)
        if first is None:
            raise DeviceError(f"device {kind!r} takes nothing after a colon; it takes: {known}")
        if first in options:
            raise DeviceError(f"device {kind!r}: {first} is given twice, {text!r} and as an option")
        options[first] = text
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise DeviceError(f"device {kind!r}: {error}; it takes: {known}") from error
    return function(**options)


def _find(name: str) -> EntryPoint:
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point
    raise DeviceError(f"unknown device {name!r}; choose one of: {', '.join(names())}")


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except ImportError as error:
        raise DeviceError(
            f"device {point.name!r} needs a package that is not installed ({error}); "
            "pip install 'espalier[sim]'"
        ) from error


class Device:
    """One accelerator, or a simulation of one. It runs one program at a time.

    Members
    -------
    name: what it was opened as.
    watchdog_cycles: cycles without progress after which a run is stopped; counts from the next
        `load`.
    timeout_s: host seconds after which a run is aborted; counts from the next `load`.
    """

    def __init__(self, name: str, opener: Opener):
        self.name = name
        self.watchdog_cycles = 1 << 20
        self.timeout_s = 600.0
        self._opener = opener
        self._transport: Transport | None = None
        self._session: Session | TokenSession | None = None
        self._closed = False

    def load(self, program: Program | str | Path) -> Session | TokenSession:
        """Put a program on the machine: check it against the hardware, write its image, load
        weights and tables. A transformer's program gives a `TokenSession`.

        An earlier session of this device loses the machine and says so when it is used.

        Raises
        ------
        ProgramError: the file is damaged, or was compiled for another configuration or version.
        CapacityError: the program, or one time step of it, does not fit the window.
        DeviceError: the device is closed, or does not answer.
        """
        if self._closed:
            raise DeviceError(f"device {self.name!r} is closed; open it again")
        if not isinstance(program, Program):
            program = Program.load(program)
        self._release()
        driver = Driver(
            self._connect(program),
            program,
            watchdog_cycles=self.watchdog_cycles,
            timeout_s=self.timeout_s,
        )
        make = Session if program.tokens is None else TokenSession
        self._session = make(driver, program)
        return self._session

    def _connect(self, program: Program) -> Transport:
        if self._transport is None or self._transport.config != program.config:
            self._disconnect()
            self._transport = self._opener(program.config)
        return self._transport

    def _release(self) -> None:
        if self._session is not None:
            self._session.detach(
                f"another program was loaded on device {self.name!r}; load this one again"
            )
            self._session = None

    def _disconnect(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def close(self) -> None:
        """Give back what the device holds; sessions end. A second call does nothing."""
        if self._session is not None:
            self._session.detach(
                f"device {self.name!r} was closed; open it and load the program again"
            )
            self._session = None
        self._disconnect()
        self._closed = True

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._session is None else "loaded"
        return f"<Device {self.name!r} {state}>"
