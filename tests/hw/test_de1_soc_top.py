"""The Verilog that goes to Quartus, run: the whole top between models of the hard blocks.

Its memories start with random values, as good as any on the chip. The models read command and data
words as the Cyclone V's memory controller does in its Avalon mode, by what is known of it.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from espalier.spec.config import BEAT_BYTES, TINY
from espalier_hw.boards import de1_soc_build
from espalier_sim.benches.programs import WINDOW_BYTES, draw
from espalier_sim.reference.machine import Machine

HERE = Path(__file__).parent
WORDS = WINDOW_BYTES // BEAT_BYTES


MEMORY = re.compile(r"^  reg \[(\d+):0\] (\\?\S+)\s+\[(\d+):0\];$", re.MULTILINE)
FILL = """{whole}
  integer fill_{number};
  initial for (fill_{number} = 0; fill_{number} <= {last}; fill_{number} = fill_{number} + 1)
    {name} [fill_{number}] = {{{copies}{{$random}}}};"""


def filled(source):
    """The Verilog with random values in every memory."""
    numbers = iter(range(10_000))

    def fill(found):
        top, name, last = int(found[1]), found[2], found[3]
        return FILL.format(
            whole=found[0], number=next(numbers), name=name, last=last, copies=top // 32 + 1
        )

    text, count = MEMORY.subn(fill, source)
    assert count, "the design has memories"
    return text


def expected(program):
    """Words of the window after two runs of the program, each from the same image."""
    machine = Machine(TINY, bytearray(WINDOW_BYTES))
    for _ in range(2):
        machine.window[:] = program.image
        machine.start()
        machine.load_program(program.length)
        machine.run(0, program.length)
    return words(machine.window)


def words(window):
    return [
        int.from_bytes(window[i : i + BEAT_BYTES], "little")
        for i in range(0, WINDOW_BYTES, BEAT_BYTES)
    ]


@pytest.mark.slow
def test_a_program_runs_from_processor_to_memory(tmp_path):
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")
    de1_soc_build.project(TINY, tmp_path, 100, 125)
    source = tmp_path / "espalier.v"
    source.write_text(filled(source.read_text()))
    program = draw(TINY, 5)
    memory = "\n".join(f"{word:032x}" for word in words(program.image))
    (tmp_path / "memory.hex").write_text(memory)
    sources = [HERE / "de1_soc_system.v", HERE / "cyclonev_atoms.v", source]
    sizes = {"WORDS": WORDS, "LENGTH": program.length}
    parameters = [f"-Pde1_soc_system.{name}={value}" for name, value in sizes.items()]
    build = ["iverilog", "-g2005", "-o", "system", "-s", "de1_soc_system", *parameters]
    subprocess.run([*build, *map(str, sources)], cwd=tmp_path, check=True, timeout=60)
    done = subprocess.run(
        ["vvp", "-n", "system"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    said = [line for line in done.stdout.splitlines() if "PASS" in line or "FAIL" in line]
    assert said == ["PASS"], said
    lines = (tmp_path / "result.hex").read_text().splitlines()
    result = [int(line, 16) for line in lines if not line.startswith("//")]
    assert result == expected(program)
