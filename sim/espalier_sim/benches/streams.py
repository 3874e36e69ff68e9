"""Drivers and monitors of what units say to each other: streams, strobes, packed payloads."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import cocotb
from amaranth.lib import data
from cocotb.triggers import RisingEdge


def pack(layout: data.StructLayout, values: Mapping[str, int]) -> int:
    """The payload that holds `values`, which have to fit; fields not named are 0."""
    constant = layout.const(dict(values))
    for name, value in values.items():
        assert constant[name] == value, f"{name} = {value} does not fit {layout.members[name]}"
    return constant.as_bits()


def unpack(layout: data.StructLayout, bits: int) -> dict[str, int]:
    """All fields of a payload of plain numbers."""
    constant = layout.from_bits(bits)
    return {name: constant[name] for name in layout.members}


def elements(bits: int, count: int, width: int, *, is_signed: bool) -> list[int]:
    """`count` numbers of `width` bits, from bit 0 up."""
    values = [(bits >> (i * width)) & ((1 << width) - 1) for i in range(count)]
    half = 1 << (width - 1)
    return [value - 2 * half if is_signed and value >= half else value for value in values]


def ports(dut: Any, prefix: str, *names: str) -> list[Any]:
    return [getattr(dut, f"{prefix}__{name}") for name in names]


class Source:
    """Sends payloads on a stream, with pauses; an offered payload stays until it is taken."""

    def __init__(self, dut: Any, prefix: str, random: Random, stall: float):
        self._clock, self._random, self._stall = dut.clk, random, stall
        self._payload, self._valid, self._ready = ports(dut, prefix, "payload", "valid", "ready")
        self._payload.value = 0
        self._valid.value = 0

    async def send(self, payload: int) -> None:
        while self._random.random() < self._stall:
            await RisingEdge(self._clock)
        self._payload.value = payload
        self._valid.value = 1
        await RisingEdge(self._clock)
        while not self._ready.value:
            await RisingEdge(self._clock)
        self._valid.value = 0


class Sink:
    """Takes payloads from a stream into `received`, with pauses, and checks that an offer stays."""

    def __init__(self, dut: Any, prefix: str, random: Random, stall: float):
        self._dut, self._random, self._stall = dut, random, stall
        self._payload, self._valid, self._ready = ports(dut, prefix, "payload", "valid", "ready")
        self._ready.value = 0
        self.received: list[int] = []
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        refused: int | None = None
        while True:
            await RisingEdge(self._dut.clk)
            if self._dut.rst.value != 0:
                continue
            valid, ready = int(self._valid.value), int(self._ready.value)
            payload = int(self._payload.value) if valid else None
            assert refused is None or payload == refused, (
                "an offered payload changed before it was taken"
            )
            refused = payload if valid and not ready else None
            if valid and ready:
                self.received.append(payload)
            self._ready.value = int(self._random.random() >= self._stall)


class Strobes:
    """Records the values of the ports `names`, and the cycle, whenever the port `strobe` is 1."""

    def __init__(self, dut: Any, strobe: str, *names: str):
        self._dut = dut
        self._strobe = getattr(dut, strobe)
        self._ports = [getattr(dut, name) for name in names]
        self.seen: list[tuple[int, ...]] = []
        self.cycles: list[int] = []
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        cycle = 0
        while True:
            await RisingEdge(self._dut.clk)
            cycle += 1
            if self._dut.rst.value == 0 and self._strobe.value:
                self.seen.append(tuple(int(port.value) for port in self._ports))
                self.cycles.append(cycle)


async def until(dut: Any, condition: Any, cycles: int = 20_000) -> None:
    """Wait until `condition()` holds. Fails after `cycles`."""
    for _ in range(cycles):
        if condition():
            return
        await RisingEdge(dut.clk)
    raise AssertionError(f"still waiting after {cycles} cycles")
