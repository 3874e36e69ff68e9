"""The simulated board's program, and the library that makes a host process see it; both cached."""

from __future__ import annotations

import platform
import shutil
from importlib import resources
from pathlib import Path

from espalier.errors import DeviceError
from espalier.spec.config import Config
from espalier_hw.boards.de1_soc import De1SocFabric

from .. import cache, generated
from ..verilator import build, toolchain

SOURCES = ("board.cpp", "lightweight.hpp", "sdram.hpp", "wire.hpp")
TRAP_SOURCES = ("trap.cpp", "decode.hpp", "wire.hpp")
PROGRAM, LIBRARY = "board", "trap.so"


def program(config: Config) -> Path:
    """The executable board of `config`. Raises DeviceError when a tool is missing or fails."""
    verilog = generated.verilog("de1-soc-fabric", config, De1SocFabric)
    return program_of(verilog.read_text(), config.name)


def program_of(verilog: str, name: str) -> Path:
    """The executable board around `verilog`, whose top module is `top` with the fabric's ports;
    `name` is for messages."""
    tools = toolchain.find()
    memory = resources.files(build.__package__).joinpath("memory.hpp").read_text()
    flags = repr((build.VERILATOR_FLAGS, build.OPTIMIZE))
    key = cache.key(verilog, memory, *map(_text, SOURCES), flags, tools.name)

    def make(folder: Path) -> None:
        objects = build.compile_model(tools, verilog, folder)
        build.link(tools, objects, [_here() / SOURCES[0]], folder / PROGRAM, (f"-I{_here()}",))
        shutil.rmtree(objects)

    target = cache.folder() / f"board-{key}"
    return cache.made(target, make, f"the simulated board with {name}") / PROGRAM


def trap() -> Path:
    """The library for host processes. Raises DeviceError on a machine that it cannot work on."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        raise DeviceError(
            "the simulated board decodes instructions of x86-64 Linux; this is "
            f"{platform.system()} on {platform.machine()}: use the device rtl instead"
        )
    toolchain.find()
    target = cache.folder() / f"board-trap-{cache.key(*map(_text, TRAP_SOURCES))}"

    def make(folder: Path) -> None:
        command = ["g++", "-std=gnu++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
        source = str(_here() / TRAP_SOURCES[0])
        build.run([*command, source, "-o", str(folder / LIBRARY)], folder)

    return cache.made(target, make) / LIBRARY


def _here() -> Path:
    return Path(str(resources.files(__package__)))


def _text(name: str) -> str:
    return (_here() / name).read_text()
