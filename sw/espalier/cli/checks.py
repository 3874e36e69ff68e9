"""What `espalier doctor` looks at, in the order in which things depend on each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EspalierError
from ..program import Program
from ..runtime import Session, Transport, fpga
from ..runtime.device import opener_of
from ..runtime.driver import Driver
from ..runtime.uio import Interrupt
from ..spec import isa
from ..spec.config import PRESETS, Config
from ..spec.registers import MAGIC, Status
from . import probe

BOARD = "de1-soc"
WATCHDOG_CYCLES = 1 << 20
TIMEOUT_S = 5.0
SMALLEST_BYTES = 1 << 16
"""Window that the probes need."""
SEED = 1


@dataclass(frozen=True)
class Check:
    """One line of the report: `what`, the `result`, and if that is not `fine`, what to do.

    `fine` is None for what could not be found out, which is no failure.
    """

    what: str
    fine: bool | None
    result: str
    advice: str = ""


class Failed(Exception):
    """Ends the examination: what follows would say nothing new."""

    def __init__(self, check: Check):
        super().__init__(check.what)
        self.check = check


def examine(
    device: str, options: dict[str, Any], config: Config, program: Program | None
) -> Iterator[Check]:
    """Check `device` step by step, up to the first failure that makes the rest senseless.

    `config` is the machine that is expected; for a board another preset may turn out to be there.
    With `program`, the machine must be that program's.
    """
    try:
        if device == BOARD:
            yield from _kernel(Path(str(options.get("root", "/"))))
        with closing(_opened(device, options, program.config if program else config)) as transport:
            yield from _opened_device(transport, program)
    except Failed as end:
        yield end.check
    except EspalierError as error:
        yield Check("run", False, str(error), "docs/board.md has symptoms and causes")


def _opened_device(transport: Transport, program: Program | None) -> Iterator[Check]:
    yield _place(transport)
    yield from _machine(transport, program)
    driver = _driver(transport, probe.copy_program(transport.config))  # stops what still runs
    yield _window(transport)
    yield _copy(transport, driver)
    yield from _interrupt(transport)
    yield _network(transport)


def _kernel(root: Path) -> Iterator[Check]:
    for finding in fpga.findings(root):
        yield Check(finding.what, finding.fine, finding.state, finding.advice)
        if finding.fine is False:
            raise Failed(Check("registers", False, "not touched", "first mend what is above"))


def _opened(device: str, options: dict[str, Any], config: Config) -> Transport:
    try:
        return opener_of(device, **options)(config)
    except EspalierError as error:
        raise Failed(Check("device", False, str(error), "docs/board.md, first start")) from error


def _place(transport: Transport) -> Check:
    base, size = transport.window_base, transport.window_bytes
    how = "waits by interrupt" if _interrupt_of(transport) else "waits by polling"
    if size < SMALLEST_BYTES:
        raise Failed(
            Check("device", False, f"the window has {size} bytes", f"at least {SMALLEST_BYTES}")
        )
    return Check("device", True, f"window of {size:#x} bytes at {base:#010x}, {how}")


def _interrupt_of(transport: Transport) -> Interrupt | None:
    found = getattr(transport, "interrupt", None)
    return found if isinstance(found, Interrupt) else None


def _machine(transport: Transport, program: Program | None) -> Iterator[Check]:
    magic, version = transport.read_register("MAGIC"), transport.read_register("VERSION")
    if magic != MAGIC:
        advice = "load Espalier's bitstream (docs/board.md); another design is in the FPGA"
        raise Failed(Check("bitstream", False, f"MAGIC {magic:#010x}, not {MAGIC:#010x}", advice))
    if version != isa.VERSION:
        advice = "build the bitstream from this version (make bitstream), or install its version"
        raise Failed(Check("bitstream", False, f"version {version}, not {isa.VERSION}", advice))
    yield Check("bitstream", True, f"Espalier, version {version}")
    transport.config = _config(transport, program)
    yield Check("configuration", True, _lanes(transport.config))
    status = Status(transport.read_register("STATUS"))
    left = status & (Status.BUSY | Status.FAULT)
    end = "left so by an earlier process: stopped and cleared" if left else "idle"
    yield Check("state", True, f"STATUS {int(status):#x}, {end}")


def _config(transport: Transport, program: Program | None) -> Config:
    """The preset, or the program's configuration, that the machine is."""
    identity = transport.read_register("IDENTITY")
    known = [program.config] if program else [transport.config, *PRESETS.values()]
    for config in known:
        if config.identity == identity:
            return config
    names = ", ".join(f"{config.name} {config.identity:#010x}" for config in known)
    raise Failed(
        Check(
            "configuration",
            False,
            f"identity {identity:#010x}, expected {names}",
            "compile the program for the machine's configuration, or load that one's bitstream",
        )
    )


def _lanes(config: Config) -> str:
    return f"{config.name}, {config.total_lanes} lanes, identity {config.identity:#010x}"


def _window(transport: Transport) -> Check:
    """The host alone: both ends of the window keep what is written."""
    random = np.random.default_rng(SEED)
    size = min(4096, transport.window_bytes)
    for offset in (0, transport.window_bytes - size):
        data = random.bytes(size)
        transport.write(offset, data)
        if transport.read(offset, size) != data:
            advice = "is that memory really reserved? compare the address with /proc/iomem"
            raise Failed(Check("window", False, f"offset {offset:#x} does not keep data", advice))
    return Check("window", True, "keeps what the host writes, first and last page")


def _copy(transport: Transport, driver: Driver) -> Check:
    """Host to memory, accelerator in, accelerator out, back to the host."""
    size = probe.copy_bytes(transport.config)
    random = np.random.default_rng(SEED + 1)
    last = transport.window_bytes - size
    for source, target in ((4096, last), (last, 4096), (8192, 4096)):
        data = random.bytes(size)
        transport.write(source, data)
        transport.write(target, bytes(size))
        driver.start("run", {probe.FROM: source, probe.TO: target})
        if transport.read(target, size) != data:
            advice = (
                "the memory port is not open (bridge fpga2sdram), the window's address is wrong, "
                "or caches are not maintained; try --option buffer=uio"
            )
            result = f"{size} bytes from {source:#x} to {target:#x} came out different"
            raise Failed(Check("loop-back", False, result, advice))
    return Check("loop-back", True, f"3 x {size} bytes through the accelerator")


def _interrupt(transport: Transport) -> Iterator[Check]:
    """The machine is DONE, so its interrupt is 1: unmasked, it fires at once."""
    interrupt = _interrupt_of(transport)
    if interrupt is None:
        return
    before = interrupt.count
    interrupt.wait(1.0)
    fine = interrupt.count > before
    advice = "check the overlay's interrupt number; until then use --option interrupt=0"
    yield Check("interrupt", fine, "arrives" if fine else "did not arrive within 1 s", advice)


def _network(transport: Transport) -> Check:
    program = probe.network(transport.config)
    session = Session(_driver(transport, program), program)
    found = np.asarray(session.run_integers(probe.network_input()))[0]
    wrong = int((found != np.array(probe.EXPECTED)).sum())
    cycles = session.counters["cycles"]
    if wrong:
        advice = "timing of this bitstream? see its report; if it is met, this is a bug: report it"
        return Check("network", False, f"{wrong} of {found.size} outputs are wrong", advice)
    spent = f" ({cycles} cycles)" if cycles else ""
    return Check("network", True, f"{found.size} outputs are bit-exact{spent}")


def _driver(transport: Transport, program: Program) -> Driver:
    return Driver(transport, program, watchdog_cycles=WATCHDOG_CYCLES, timeout_s=TIMEOUT_S)
