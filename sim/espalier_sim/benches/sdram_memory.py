"""DDR behind an FPGA-to-SDRAM port (Avalon-MM, bursts), and the rules of that port."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from espalier.spec.config import BEAT_BYTES

LONGEST_BURST = 16
PENDING_READS = 14
"""Read bursts that the controller takes before it has answered the first."""


class SdramMemory:
    """A window of `size` bytes at bus address `base`; the port pauses with probability `stall`.

    Checks in every cycle: never read and write at once, a command that has to wait does not change,
    bursts of 1 to 16 whole beats inside the window, nothing but its own beats inside a write burst.

    Members
    -------
    data: bytearray of the window. written: (offset, 16 bytes) of every whole beat, in order.
    hangs: True lets the memory stop answering. quiet: no burst is under way.
    """

    def __init__(
        self,
        dut: Any,
        prefix: str,
        *,
        base: int,
        size: int,
        random: Random,
        stall: float,
        latency: int = 12,
    ):
        self._dut, self._prefix, self._random = dut, prefix, random
        self._stall, self._latency, self._base = stall, latency, base
        self.data = bytearray(size)
        self.written: list[tuple[int, bytes]] = []
        self.hangs = False
        self._reads: deque[tuple[int, deque[int]]] = deque()
        self._left = self._next = self._cycle = 0
        self._waiting: tuple[int, ...] | None = None
        for name in ("waitrequest", "readdatavalid", "readdata"):
            self._port(name).value = int(name == "waitrequest")
        cocotb.start_soon(self._run())

    @property
    def quiet(self) -> bool:
        return not self._reads and not self._left

    def _port(self, name: str) -> Any:
        return getattr(self._dut, self._prefix + name)

    def _get(self, name: str) -> int:
        return int(self._port(name).value)

    def _willing(self) -> bool:
        return not self.hangs and self._random.random() >= self._stall

    async def _run(self) -> None:
        while True:
            await RisingEdge(self._dut.clk)
            if self._dut.rst.value != 0:
                continue
            self._cycle += 1
            self._take()
            self._answer()
            room = self._left or len(self._reads) < PENDING_READS
            self._port("waitrequest").value = int(not (room and self._willing()))

    def _take(self) -> None:
        """What was commanded in the cycle that ends."""
        read, write = self._get("read"), self._get("write")
        assert not (read and write), "read and write in the same cycle"
        names = ("address", "burstcount", *(("writedata", "byteenable") if write else ()))
        command = (read, write, *(self._get(name) for name in names)) if read or write else None
        if self._waiting is not None:
            assert command == self._waiting, "a command changed before it was taken"
        self._waiting = command if self._get("waitrequest") else None
        if command is None or self._waiting is not None:
            return
        if write:
            self._write(*command[2:])
            return
        assert not self._left, "a read inside a write burst"
        due = self._cycle + self._random.randint(1, 2 * self._latency)
        self._reads.append((due, deque(self._burst(*command[2:4]))))

    def _burst(self, address: int, beats: int) -> list[int]:
        """Window offsets of the beats of a burst that begins."""
        offset = address - self._base
        assert address % BEAT_BYTES == 0, f"{address:#x} lies inside a beat"
        assert 1 <= beats <= LONGEST_BURST, f"{beats} beats"
        assert offset >= 0 and offset + beats * BEAT_BYTES <= len(self.data), (
            f"{beats} beats from {address:#x} leave the window"
        )
        return [offset + i * BEAT_BYTES for i in range(beats)]

    def _write(self, address: int, beats: int, data: int, enabled: int) -> None:
        if not self._left:
            self._next, self._left = self._burst(address, beats)[0], beats
        beat = data.to_bytes(BEAT_BYTES, "little")
        for i in range(BEAT_BYTES):
            if enabled >> i & 1:
                self.data[self._next + i] = beat[i]
        if enabled == (1 << BEAT_BYTES) - 1:
            self.written.append((self._next, beat))
        self._next += BEAT_BYTES
        self._left -= 1

    def _answer(self) -> None:
        """One beat of the oldest read, when its time has come."""
        ready = bool(self._reads) and self._reads[0][0] <= self._cycle and self._willing()
        self._port("readdatavalid").value = int(ready)
        if not ready:
            return
        offset = self._reads[0][1].popleft()
        beat = self.data[offset : offset + BEAT_BYTES]
        self._port("readdata").value = int.from_bytes(beat, "little")
        if not self._reads[0][1]:
            self._reads.popleft()
