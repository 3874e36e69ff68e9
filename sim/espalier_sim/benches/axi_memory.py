"""DDR behind an AXI4 port in Python: what `verilator/memory.hpp` is to the shared library.

(cocotbext-axi's memory wants transaction ids, which this port does not have.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from espalier.spec.config import BEAT_BYTES

LONGEST_BURST = 16
PAGE_BYTES = 4096
OKAY, SLAVE_ERROR = 0, 2
INCREMENTING, LOG2_BEAT_BYTES = 1, 4
ALL_BYTES = (1 << BEAT_BYTES) - 1


@dataclass
class _Burst:
    address: int
    beats: int
    due: int
    moved: int = 0
    failed: bool = False
    late: list[tuple[int, bytes]] = field(default_factory=list)


class AxiMemory:
    """A window of `size` bytes at bus address `base`; channels pause with probability `stall`.

    A port with one half only (`ar`, `r` or `aw`, `w`, `b`) is served as well. Checks on every
    burst: 16-byte beats, incrementing, at most 16 beats, inside one 4 KiB page and the window,
    WLAST and strobes right. A write becomes visible with its response, the last allowed moment.

    Members
    -------
    data: bytearray of the window.
    written: (offset, 16 bytes) of every beat written, in order.
    fail_at: offset of the beat that answers with an error, or None.
    hangs: True lets the memory stop answering.
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
        latency: int = 8,
    ):
        self._dut, self._prefix, self._random = dut, prefix, random
        self._stall, self._latency, self._base = stall, latency, base
        self.data = bytearray(size)
        self.written: list[tuple[int, bytes]] = []
        self.fail_at: int | None = None
        self.hangs = False
        self._reads: deque[_Burst] = deque()
        self._writes: deque[_Burst] = deque()
        self._beats: deque[tuple[bytes, int]] = deque()
        self._cycle = 0
        self._has_reads = hasattr(dut, prefix + "arvalid")
        self._has_writes = hasattr(dut, prefix + "awvalid")
        self._ready = ["arready"] * self._has_reads + ["awready", "wready"] * self._has_writes
        answers = ["rvalid", "rdata", "rresp", "rlast"] * self._has_reads
        answers += ["bvalid", "bresp"] * self._has_writes
        for name in self._ready + answers:
            self._port(name).value = 0
        cocotb.start_soon(self._run())

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
            if self._has_reads:
                self._take_reads()
                self._offer_read()
            if self._has_writes:
                self._take_writes()
                self._offer_response()
            for name in self._ready:
                self._port(name).value = int(self._willing())

    def _take_reads(self) -> None:
        """What was transferred at this edge: ports still show the cycle that ends."""
        if self._get("arready") and self._get("arvalid"):
            self._reads.append(self._begin("ar"))
        if self._get("rvalid") and self._get("rready"):
            self._port("rvalid").value = 0
            burst = self._reads[0]
            burst.moved += 1
            if burst.moved == burst.beats:
                self._reads.popleft()

    def _take_writes(self) -> None:
        if self._get("awready") and self._get("awvalid"):
            self._writes.append(self._begin("aw"))
        if self._get("wready") and self._get("wvalid"):
            assert self._get("wstrb") == ALL_BYTES, "a write beat is not whole"
            beat = self._get("wdata").to_bytes(BEAT_BYTES, "little")
            self._beats.append((beat, self._get("wlast")))
        for burst in self._writes:
            while self._beats and burst.moved < burst.beats:
                self._accept(burst, *self._beats.popleft())
        if self._get("bvalid") and self._get("bready"):
            self._port("bvalid").value = 0

    def _begin(self, channel: str) -> _Burst:
        address, beats = self._get(channel + "addr") - self._base, self._get(channel + "len") + 1
        end = address + beats * BEAT_BYTES
        assert self._get(channel + "size") == LOG2_BEAT_BYTES, f"{channel}: beats are not 16 bytes"
        assert self._get(channel + "burst") == INCREMENTING, f"{channel}: burst is not incrementing"
        assert address % BEAT_BYTES == 0, f"{channel}: {address:#x} lies inside a beat"
        assert beats <= LONGEST_BURST, f"{channel}: {beats} beats are too many"
        assert (address + self._base) // PAGE_BYTES == (end + self._base - 1) // PAGE_BYTES, (
            f"{channel}: burst at {address:#x} crosses a 4 KiB boundary"
        )
        assert address >= 0 and end <= len(self.data), (
            f"{channel}: burst at {address:#x} leaves the window"
        )
        return _Burst(address, beats, self._cycle + self._random.randint(0, 2 * self._latency))

    def _accept(self, burst: _Burst, data: bytes, last: int) -> None:
        address = burst.address + burst.moved * BEAT_BYTES
        burst.moved += 1
        assert last == int(burst.moved == burst.beats), f"WLAST is wrong at {address:#x}"
        if address == self.fail_at:
            burst.failed = True
        else:
            burst.late.append((address, data))
            self.written.append((address, data))

    def _offer_read(self) -> None:
        """The next beat, unless one is waiting to be taken."""
        if (
            self._held("r")
            or not self._reads
            or self._reads[0].due > self._cycle
            or not self._willing()
        ):
            return
        burst = self._reads[0]
        offset = burst.address + burst.moved * BEAT_BYTES
        self._port("rdata").value = int.from_bytes(
            self.data[offset : offset + BEAT_BYTES], "little"
        )
        self._port("rresp").value = SLAVE_ERROR if offset == self.fail_at else OKAY
        self._port("rlast").value = int(burst.moved + 1 == burst.beats)
        self._port("rvalid").value = 1

    def _offer_response(self) -> None:
        if self._held("b") or not self._writes or not self._willing():
            return
        burst = self._writes[0]
        if burst.moved < burst.beats or burst.due > self._cycle:
            return
        self._writes.popleft()
        for offset, data in burst.late:
            self.data[offset : offset + BEAT_BYTES] = data
        self._port("bresp").value = SLAVE_ERROR if burst.failed else OKAY
        self._port("bvalid").value = 1

    def _held(self, channel: str) -> bool:
        """A payload was offered before this edge and not taken at it."""
        return bool(self._get(channel + "valid")) and not self._get(channel + "ready")
