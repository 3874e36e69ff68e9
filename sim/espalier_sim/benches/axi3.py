"""The processor's side of the lightweight bridge: an AXI3 master in Python, and the bus's rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import Event, RisingEdge

from .host import Host

OKAY, SLAVE_ERROR = 0, 2
FIXED, INCREMENTING, WRAPPING = range(3)
WORD = 2
"""AXI's code for four bytes."""
HANDSHAKES = {
    "aw": ("id", "addr", "len", "size", "burst"),
    "w": ("id", "data", "strb", "last"),
    "b": ("id", "resp"),
    "ar": ("id", "addr", "len", "size", "burst"),
    "r": ("id", "data", "resp", "last"),
}
SENT, RECEIVED = ("aw", "w", "ar"), ("b", "r")


@dataclass
class Access:
    """One burst and its answer. words: read or to be written; response: worst of its beats."""

    address: tuple[int, ...]
    words: list[int]
    strobes: list[int] = field(default_factory=list)
    response: int = OKAY
    done: Event = field(default_factory=Event)


class Axi3Master:
    """Bursts of any kind, several at once, with pauses on all channels; checks every answer.

    The slave's answers must stay until they are taken, belong to the oldest burst without one
    (this slave keeps the order), carry its id, come after its data, and mark its last beat.
    """

    def __init__(self, dut: Any, prefix: str, *, random: Random, stall: float):
        self._dut, self._prefix, self._random, self._stall = dut, prefix, random, stall
        self._queues: dict[str, deque[tuple[int, ...]]] = {name: deque() for name in SENT}
        self._writes: deque[Access] = deque()
        self._reads: deque[Access] = deque()
        self._sent = 0
        self._held: dict[str, tuple[int, ...] | None] = dict.fromkeys(RECEIVED)
        for channel in SENT:
            self._set(channel, (0,) * len(HANDSHAKES[channel]), valid=0)
        for channel in RECEIVED:
            self._port(channel, "ready").value = 0
        cocotb.start_soon(self._run())

    async def write(
        self,
        address: int,
        words: Sequence[int],
        *,
        strobes: Sequence[int] | None = None,
        size: int = WORD,
        kind: int = INCREMENTING,
    ) -> int:
        """Write a burst, one word a beat; its response."""
        access = self._access(address, list(words), size, kind)
        access.strobes = list(strobes or [15] * len(words))
        self._queues["aw"].append(access.address)
        for i, (word, strobe) in enumerate(zip(access.words, access.strobes, strict=True)):
            last = int(i + 1 == len(words))
            self._queues["w"].append((access.address[0], word, strobe, last))
        self._writes.append(access)
        await access.done.wait()
        return access.response

    async def read(
        self, address: int, beats: int = 1, *, size: int = WORD, kind: int = INCREMENTING
    ) -> tuple[list[int], int]:
        """Read a burst: the words on the bus, and the worst response."""
        access = self._access(address, [0] * beats, size, kind)
        access.words.clear()
        self._queues["ar"].append(access.address)
        self._reads.append(access)
        await access.done.wait()
        return access.words, access.response

    def _access(self, address: int, words: list[int], size: int, kind: int) -> Access:
        assert 1 <= len(words) <= 16 and size <= WORD, "no such burst on this bus"
        identity = self._random.randrange(1 << 12)
        return Access((identity, address, len(words) - 1, size, kind), words)

    def _port(self, channel: str, name: str) -> Any:
        return getattr(self._dut, f"{self._prefix}{channel}{name}")

    def _set(self, channel: str, values: tuple[int, ...], *, valid: int = 1) -> None:
        for name, value in zip(HANDSHAKES[channel], values, strict=True):
            self._port(channel, name).value = value
        self._port(channel, "valid").value = valid

    def _moved(self, channel: str) -> bool:
        ports = (self._port(channel, name).value for name in ("valid", "ready"))
        return all(int(value) for value in ports)

    async def _run(self) -> None:
        while True:
            await RisingEdge(self._dut.clk)
            if self._dut.rst.value != 0:
                continue
            moved = {channel: self._moved(channel) for channel in HANDSHAKES}
            self._answers(moved)
            for channel in SENT:
                self._drive(channel, moved[channel])
            for channel in RECEIVED:
                self._port(channel, "ready").value = int(self._random.random() >= self._stall)

    def _drive(self, channel: str, moved: bool) -> None:
        """The next offer of a channel, unless one is waiting to be taken."""
        if channel == "w" and moved:
            self._sent += 1
        if int(self._port(channel, "valid").value) and not moved:
            return
        queue = self._queues[channel]
        if queue and self._random.random() >= self._stall:
            self._set(channel, queue.popleft())
        else:
            self._port(channel, "valid").value = 0

    def _answers(self, moved: dict[str, bool]) -> None:
        for channel in RECEIVED:
            offered = bool(int(self._port(channel, "valid").value))
            names = HANDSHAKES[channel] if offered else ()
            payload = tuple(int(self._port(channel, name).value) for name in names)
            held = self._held[channel]
            assert held is None or payload == held, f"{channel}: an answer changed or went away"
            self._held[channel] = payload if offered and not moved[channel] else None
            if moved[channel]:
                (self._written if channel == "b" else self._delivered)(*payload)

    def _written(self, identity: int, response: int) -> None:
        assert self._writes, "a response to no write"
        access = self._writes.popleft()
        assert identity == access.address[0], f"id {identity:#x}, not {access.address[0]:#x}"
        assert self._sent >= len(access.words), "a response before the last beat"
        self._sent -= len(access.words)
        access.response = response
        access.done.set()

    def _delivered(self, identity: int, word: int, response: int, last: int) -> None:
        assert self._reads, "a beat of no read"
        access = self._reads[0]
        assert identity == access.address[0], f"id {identity:#x}, not {access.address[0]:#x}"
        access.words.append(word)
        access.response = max(access.response, response)
        assert last == int(len(access.words) == access.address[2] + 1), "RLAST at the wrong beat"
        if last:
            self._reads.popleft().done.set()


class LightweightHost(Host):
    """Registers by name through the lightweight bridge, one word a burst."""

    def __init__(self, dut: Any, prefix: str, *, random: Random, stall: float):
        self._dut = dut
        self.master = Axi3Master(dut, prefix, random=random, stall=stall)

    async def read_address(self, address: int) -> int:
        (word,), response = await self.master.read(address)
        assert response == OKAY, f"reading {address:#x} was answered with {response}"
        return word

    async def write_address(self, address: int, value: int) -> None:
        response = await self.master.write(address, [value])
        assert response == OKAY, f"writing {address:#x} was answered with {response}"
