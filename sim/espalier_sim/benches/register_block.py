"""Register block bench: random host accesses against a model of what each register must hold."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from espalier.spec import isa, registers
from espalier.spec.config import preset
from espalier.spec.registers import COUNTERS, MAGIC, REGISTERS, Control, Status
from espalier_hw.control import COMMAND, FAULT, STATUS

from .host import Host, start_clock
from .streams import pack, unpack

CONFIG = preset(os.environ["ESPALIER_CONFIG"])
SEED = int(os.environ["COCOTB_RANDOM_SEED"])
SETTLE_CYCLES = 64
"""Within this time an event has reached its counter."""
SETTINGS = ("WINDOW_BASE", "WINDOW_SIZE", "ENTRY", "PROGRAM_LENGTH", "WATCHDOG")
PAGE = 0xFFF


class Model:
    """What the host may expect to read."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(REGISTERS, 0)
        self.values.update(MAGIC=MAGIC, VERSION=isa.VERSION, IDENTITY=CONFIG.identity)
        self.commands: list[int] = []

    def write(self, name: str, value: int) -> None:
        """`rw` registers change while the machine is idle; CONTROL gives a command at any time."""
        idle = not self.values["STATUS"] & (Status.BUSY | Status.DRAINING)
        if name == "CONTROL":
            self.commands += [value & sum(Control)] if value & sum(Control) else []
        elif REGISTERS[name].access == "rw" and idle:
            self.values[name] = value & ~PAGE if name == "WINDOW_BASE" else value

    def count(self, name: str, events: int) -> None:
        low, high = f"{name.upper()}_LOW", f"{name.upper()}_HIGH"
        total = self.values[low] + (self.values[high] << 32) + events
        self.values[low], self.values[high] = total & 0xFFFF_FFFF, total >> 32


class Bench:
    """The host on one side; on the other the machine: R0..R15, state and events."""

    def __init__(self, dut: Any, stall: float):
        self.dut, self.random, self.model = dut, Random(SEED), Model()
        self.host = Host(dut, "bus__", random=self.random, stall=stall)
        self.commands: list[int] = []
        self._registers = [0] * isa.REGISTERS
        for name in ("status", "fault", "clear_counters", "registers__data"):
            getattr(dut, name).value = 0
        for name in COUNTERS:
            getattr(dut, f"events__{name}").value = 0
        cocotb.start_soon(self._machine())

    async def power_up(self) -> None:
        """Clock and reset, and a clear of the counters, whose memory a reset leaves as it is."""
        await start_clock(self.dut)
        await self.clear_counters()

    async def clear_counters(self) -> None:
        self.dut.clear_counters.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.clear_counters.value = 0
        for name in COUNTERS:
            self.model.values.update({f"{name.upper()}_LOW": 0, f"{name.upper()}_HIGH": 0})

    async def _machine(self) -> None:
        """Answer register accesses a cycle later, as the sequencer does, and note commands."""
        dut = self.dut
        while True:
            await RisingEdge(dut.clk)
            if dut.rst.value != 0:
                continue
            # The host's address channel holds x while it is not valid.
            index = int(dut.registers__read.value) if dut.registers__read.value.is_resolvable else 0
            dut.registers__data.value = self._registers[index]
            if dut.registers__write.value:
                self._registers[int(dut.registers__target.value)] = int(dut.registers__value.value)
            if dut.command.value != 0:
                self.commands.append(int(dut.command.value))

    def state(self, status: int, cause: int = 0, pc: int = 0, address: int = 0) -> None:
        """What the machine reports from now on."""
        names = ("busy", "done", "fault", "draining")
        bits = {name: status >> i & 1 for i, name in enumerate(names)}
        self.dut.status.value = pack(STATUS, bits)
        self.dut.fault.value = pack(FAULT, {"cause": cause, "pc": pc, "address": address})
        self.model.values.update(STATUS=status, FAULT=cause, FAULT_PC=pc, FAULT_ADDRESS=address)

    async def events(self, cycles: int) -> None:
        """Random events in `cycles` cycles, and time for all of them to be counted."""
        for _ in range(cycles):
            for name in COUNTERS:
                port = getattr(self.dut, f"events__{name}")
                amount = self.random.randrange(1 << len(port)) if self.random.random() < 0.7 else 0
                port.value = amount
                self.model.count(name, amount)
            await RisingEdge(self.dut.clk)
        for name in COUNTERS:
            getattr(self.dut, f"events__{name}").value = 0
        await ClockCycles(self.dut.clk, SETTLE_CYCLES)

    async def check_all(self) -> None:
        for name, register in REGISTERS.items():
            if register.access != "wo":
                value = await self.host.read(name)
                assert value == self.model.values[name], f"{name} is {value:#x}"
        assert self.commands == self.model.commands


async def _accesses(dut: Any, stall: float) -> None:
    bench = Bench(dut, stall)
    await bench.power_up()
    await bench.check_all()
    for status in (0, Status.BUSY, Status.DONE, Status.FAULT | Status.DRAINING, Status.FAULT):
        cause = bench.random.randint(1, 5) if status & Status.FAULT else 0
        bench.state(status, cause, bench.random.randrange(1 << 16), bench.random.randrange(1 << 32))
        for _ in range(12):
            name, value = bench.random.choice(list(REGISTERS)), bench.random.randrange(1 << 32)
            await bench.host.write(name, value)
            bench.model.write(name, value)
        await bench.check_all()
        for name in SETTINGS:
            port = getattr(dut, name.lower())
            assert int(port.value) == bench.model.values[name], f"the output {name.lower()} differs"


@cocotb.test()
async def accesses_without_stalls(dut: Any) -> None:
    await _accesses(dut, 0.0)


@cocotb.test()
async def accesses_with_stalls(dut: Any) -> None:
    await _accesses(dut, 0.5)


@cocotb.test()
async def commands_are_single_strobes(dut: Any) -> None:
    bench = Bench(dut, 0.3)
    await bench.power_up()
    for control in Control:
        await bench.host.write("CONTROL", control)
    await ClockCycles(dut.clk, 5)
    seen = [unpack(COMMAND, bits) for bits in bench.commands]
    assert seen == [{c.name.lower(): int(c is control) for c in Control} for control in Control]


@cocotb.test()
async def counters_count_every_event_and_clear(dut: Any) -> None:
    bench = Bench(dut, 0.0)
    await bench.power_up()
    await bench.events(300)
    await bench.check_all()
    await bench.clear_counters()
    await bench.events(40)
    await bench.check_all()


@cocotb.test()
async def addresses_outside_the_map_read_zero(dut: Any) -> None:
    bench = Bench(dut, 0.3)
    await bench.power_up()
    used = {register.address for register in REGISTERS.values()}
    for address in range(0, 2 * registers.SIZE_BYTES, 4):
        if address not in used:
            await bench.host.write_address(address, 0xFFFF_FFFF)
            assert await bench.host.read_address(address) == 0
    await bench.check_all()
