"""Ulx3sFabric in a process of its own, at the other end of a pseudo-terminal: what the device
`serial` opens. `python -m espalier_sim.board.serial --config TINY espalier run ...` runs a host
program beside it; `{path}` in its arguments becomes the terminal's path."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import TracebackType

from espalier.errors import DeviceError, EspalierError
from espalier.spec.config import PRESETS, Config, preset
from espalier_hw.boards.ulx3s import WINDOW_BYTES, Ulx3sFabric
from espalier_hw.verilog import for_ecp5

from .. import cache, generated
from ..verilator import build, toolchain

SOURCE, PROGRAM = "serial_board.cpp", "serial-board"
CLOCKS = 4
"""Cycles a bit: the fewest that the receiver takes, so that simulation is shortest."""


def program(config: Config, clocks: int, window_bytes: int) -> Path:
    """The executable board. Raises DeviceError when a tool is missing or fails."""
    tools = toolchain.find()
    sizes = {"clocks": clocks, "window_bytes": window_bytes}
    name = f"ulx3s-fabric {sizes}"
    fabric = generated.verilog(name, config, lambda c: Ulx3sFabric(c, **sizes), for_ecp5)
    verilog = fabric.read_text()
    here, there = Path(str(resources.files(__package__))), resources.files(build.__package__)
    texts = (here / SOURCE).read_text(), there.joinpath("memory.hpp").read_text()
    flags = repr((build.VERILATOR_FLAGS, build.OPTIMIZE))

    def make(folder: Path) -> None:
        objects = build.compile_model(tools, verilog, folder)
        build.link(tools, objects, [here / SOURCE], folder / PROGRAM, ())
        shutil.rmtree(objects)

    target = cache.folder() / f"serial-board-{cache.key(verilog, *texts, flags, tools.name)}"
    return cache.made(target, make, f"the simulated serial board with {config.name}") / PROGRAM


class SerialBoard:
    """A simulated board with a serial port; a context manager. Hosts may come and go at `path`.

    Parameters
    ----------
    clocks: cycles a bit. window_bytes: memory, a multiple of 4096.
    damage: probability, in each direction, that a byte is changed or lost; drawn from `seed`.

    Raises
    ------
    DeviceError: a tool to build it with is missing, or it did not start.
    """

    def __init__(
        self,
        config: Config,
        *,
        clocks: int = CLOCKS,
        window_bytes: int = WINDOW_BYTES,
        seed: int = 0,
        damage: float = 0.0,
    ):
        self._process = subprocess.Popen(
            [str(program(config, clocks, window_bytes)), *map(str, (clocks, seed, damage))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.path = self._process.stdout.readline().strip()
        if not self.path:
            self.close()
            raise DeviceError("the simulated board did not start")

    def close(self) -> int:
        """End the process; the clock cycles that it ran. A second call does nothing."""
        said, _ = self._process.communicate() if self._process.poll() is None else ("", "")
        return int(said or 0)

    def __enter__(self) -> SerialBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def main() -> int:
    """Exit status of the host program."""
    parser = argparse.ArgumentParser(
        prog="python -m espalier_sim.board.serial", description=__doc__
    )
    parser.add_argument("--config", default="TINY", choices=PRESETS, help="sizes")
    parser.add_argument("--clocks", type=int, default=CLOCKS, help="cycles a bit")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--damage", type=float, default=0.0, help="probability for each byte")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the host program")
    options = vars(parser.parse_args())
    command, config = options.pop("command"), preset(options.pop("config"))
    try:
        with SerialBoard(config, **options) as board:
            status = subprocess.run([w.replace("{path}", board.path) for w in command]).returncode
            cycles = board.close()
    except (EspalierError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"board: {cycles} cycles")
    return status


if __name__ == "__main__":
    sys.exit(main())
