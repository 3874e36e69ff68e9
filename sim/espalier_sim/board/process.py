"""A simulated board: its process, its files, and the environment in which host programs see it."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from espalier.errors import DeviceError
from espalier.spec import registers
from espalier.spec.config import Config

from . import build

WINDOW_BASE = 0x3C00_0000
REGISTERS_BASE = 0xFF20_0000
BUFFER = "espalier-buffer"
REPORT, HANG, FORGE, MUTE = 4, 5, 6, 7
"""Requests of wire.hpp."""
WORDS = {0xFF70_6000: 4, 0xFFD0_501C: 0b101, 0xFFC2_5080: 0x3FFF}
"""What the processor's own registers hold on a board that is ready: the FPGA manager's status,
bridges in reset, ports to the memory that are out of it."""
FILES = {
    "proc/device-tree/compatible": "terasic,de1-soc\0altr,socfpga-cyclone5\0altr,socfpga\0",
    "proc/iomem": f"00000000-{WINDOW_BASE - 1:08x} : System RAM\n",
    "sys/class/fpga_manager/fpga0/state": "operating\n",
    "sys/class/fpga_bridge/br0/name": "lwhps2fpga\n",
    "sys/class/fpga_bridge/br0/state": "enabled\n",
    "sys/class/fpga_bridge/br1/name": "fpga2sdram\n",
    "sys/class/fpga_bridge/br1/state": "enabled\n",
    "sys/class/uio/uio0/name": "espalier\n",
    "sys/class/uio/uio0/maps/map0/addr": f"{REGISTERS_BASE:#010x}\n",
    "sys/class/uio/uio0/maps/map0/size": "0x00001000\n",
}
"""What the kernel says on a board that is ready."""


@dataclass(frozen=True)
class Report:
    """Clock cycles since power-up, bursts on the memory port, whether the accelerator is busy, and
    the first rule that was broken: by the fabric on either port, or by a byte outside the window.
    """

    cycles: int
    bursts: int
    busy: bool
    breach: str


class Board:
    """De1SocFabric of `config` in a process of its own; a context manager.

    `root` is the folder above its dev and sys: the device's option of that name. Host programs run
    with `environment`, which loads the library that turns their register accesses into bus
    transactions (trap.cpp).

    Parameters
    ----------
    window_bytes: memory for the window, a multiple of 4096.
    seed, stall, latency: of all pauses on both buses, as of the device `rtl`.
    cached: offer the window as a u-dma-buf device too, whose cache the host has to maintain.
    program: another executable board (`build.program_of`) than De1SocFabric's.

    Raises
    ------
    DeviceError: a tool to build it with is missing, or it did not start.
    """

    def __init__(
        self,
        config: Config,
        *,
        window_bytes: int = 1 << 20,
        seed: int = 0,
        stall: float = 0.0,
        latency: int = 24,
        cached: bool = True,
        program: Path | None = None,
    ):
        program, self._trap = program or build.program(config), build.trap()
        self.window_bytes = window_bytes
        self.root = Path(tempfile.mkdtemp(prefix="espalier-board-"))
        try:
            self._make_files(cached)
            arguments = [self.root, WINDOW_BASE, window_bytes, seed, stall, latency]
            self._process = subprocess.Popen(
                [str(program), *map(str, arguments)], stdout=subprocess.PIPE, text=True
            )
            assert self._process.stdout is not None
            if self._process.stdout.readline() != "ready\n":
                raise DeviceError(f"the simulated board did not start in {self.root}")
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise

    def _make_files(self, cached: bool) -> None:
        window = {"addr": f"{WINDOW_BASE:#010x}\n", "size": f"{self.window_bytes:#010x}\n"}
        files = {**FILES, **{f"sys/class/uio/uio0/maps/map1/{k}": v for k, v in window.items()}}
        if cached:
            folder = f"sys/class/u-dma-buf/{BUFFER}"
            files[f"{folder}/phys_addr"] = f"{WINDOW_BASE:#010x}\n"
            files[f"{folder}/size"] = f"{self.window_bytes}\n"
            files[f"{folder}/sync_for_cpu"] = files[f"{folder}/sync_for_device"] = "0\n"
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        for folder in ("dev", "board"):
            (self.root / folder).mkdir()
        sizes = {"mem": 1 << 32, BUFFER: self.window_bytes}  # without blocks until written
        for name, size in sizes.items():
            with (self.root / "dev" / name).open("wb") as file:
                file.truncate(size)
        self.poke(WORDS)

    def poke(self, words: dict[int, int]) -> None:
        """Set 32-bit words of physical memory, by address."""
        with (self.root / "dev" / "mem").open("r+b") as memory:
            for address, word in words.items():
                memory.seek(address)
                memory.write(struct.pack("<I", word))

    @property
    def environment(self) -> dict[str, str]:
        """Of host programs."""
        return {**os.environ, "LD_PRELOAD": str(self._trap), "ESPALIER_BOARD": str(self.root)}

    def report(self) -> Report:
        """What the board has seen so far. Its guard pages are checked now."""
        cycles, bursts, busy, breach = self._ask(REPORT).split(" ", 3)
        return Report(int(cycles), int(bursts), busy == "1", breach)

    def hang_memory(self, cycles: int = 0) -> None:
        """The memory takes and answers nothing from `cycles` on, for ever."""
        self._ask(HANG, data=cycles)

    def forge(self, register: str, value: int) -> None:
        """Answer reads of a register as another bitstream would."""
        self._ask(FORGE, registers.address(register), value)

    def mute_interrupt(self) -> None:
        """The interrupt does not come any more."""
        self._ask(MUTE)

    def _ask(self, kind: int, address: int = 0, data: int = 0) -> str:
        """One request (wire.hpp); the text of a report."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bus:
            bus.connect(str(self.root / "board" / "bus"))
            bus.send(struct.pack("=IIIIQ", kind, address, 0, 0, data))
            bus.recv(16)
            return bus.recv(4096).decode() if kind == REPORT else ""

    def close(self) -> None:
        """End the process and remove its files; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
