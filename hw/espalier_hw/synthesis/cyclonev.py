"""`make synth`: every unit through Yosys' `synth_intel_alm`, summed up against the DE1-SoC's
Cyclone V.

The estimate pairs LUTs ideally: ALMs = ALUT6 + (ALUT2..5 + ARITH)/2 + MLAB/2 (20 MLAB cells are 10
ALMs); flip-flops ride along up to 4 an ALM. Quartus is expected 15-25 % lower. Equal modules are
synthesised once and counted as often as they stand there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from amaranth.hdl import Elaboratable

from espalier.spec.config import ACCUMULATOR_BITS, PRESETS, Config, preset

from .yosys import SynthesisError, hierarchy_counts

T = TypeVar("T")
SYNTHESIS = "synth_intel_alm -family cyclonev -top top -noflatten -noiopad -noclkbuf"
CHIP = {"alms": 32_070, "m10k": 397, "dsp": 87}
"""5CSEMA5F31C6."""
LIMITS = {"alms": 0.85, "m10k": 0.90, "dsp": 1.0}
"""Shares of the chip that a design may take by this estimate."""
BLOCK_MEMORIES = (
    "engine.array",
    "loader.weight_buffer",
    "sequencer.fetch",
    "store.buffer",
    "vector.parameter_memory",
    "vector.sum_memory",
    "vector.table_memory",
    "vector.vector_memory",
)
"""Units whose memories must be block RAM."""
PAGE = """# Does it fit?

Every unit of {name} ({lanes} lanes) through Yosys' `synth_intel_alm`, against the DE1-SoC's
5CSEMA5F31C6. Written by

    make synth PAGE=docs/budget.md

The estimate pairs LUTs ideally and counts flip-flops only where they outnumber the LUTs' own;
Quartus is expected 15-25 % lower. The limits that `make synth` holds: {limits};
slots in MLABs, no other memory in flip-flops. What was budgeted before the RTL:
[0001](decisions/0001-sizes-of-de1-soc.md).

{table}
"""


@dataclass(frozen=True)
class Usage:
    """Resources of one unit."""

    alms: float = 0
    m10k: int = 0
    mlab: int = 0
    dsp: float = 0
    flip_flops: int = 0

    @staticmethod
    def of(cells: Mapping[str, int]) -> Usage:
        """From Yosys cell counts. DSP blocks: one 27x27, two 18x18 or three 9x9 each."""
        n = Counter(cells)
        small = sum(n[f"MISTRAL_ALUT{i}"] for i in range(2, 6)) + n["MISTRAL_ALUT_ARITH"]
        luts = n["MISTRAL_ALUT6"] + small / 2
        flip_flops = n["MISTRAL_FF"]
        return Usage(
            alms=max(luts, flip_flops / 4) + n["MISTRAL_MLAB"] / 2,
            m10k=n["MISTRAL_M10K"],
            mlab=n["MISTRAL_MLAB"],
            dsp=n["MISTRAL_MUL27X27"] + n["MISTRAL_MUL18X18"] / 2 + n["MISTRAL_MUL9X9"] / 3,
            flip_flops=flip_flops,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(self.row(), other.row(), strict=True)))

    def row(self) -> tuple[float, int, int, float, int]:
        return self.alms, self.m10k, self.mlab, self.dsp, self.flip_flops


def measure(component: Elaboratable) -> dict[str, Usage]:
    """Usage by unit of what Yosys makes of `component`, and the whole under ''."""
    units = by_unit(hierarchy_counts(component, SYNTHESIS))
    return {unit: Usage.of(sum(counts, Counter())) for unit, counts in units.items()}


def by_unit(paths: Mapping[tuple[str, ...], T]) -> dict[str, list[T]]:
    """What instances have, by unit: submodules two levels down (`engine.array`), all under ''.

    On a board the accelerator's units keep their names, and what is around it has its own.
    """
    units: dict[str, list[T]] = {}
    for path, item in paths.items():
        inside = path[1:] if path[:1] == ("fabric",) else path
        inside = inside[1:] if inside[:1] == ("accelerator",) else inside
        unit = ".".join(_kind(part) for part in inside[:2])
        units.setdefault(unit or "top", []).append(item)
    return {**dict(sorted(units.items())), "": list(paths.values())}


def _kind(part: str) -> str:
    """A submodule's name without its number; the vector unit's delay lines are one kind."""
    return re.sub(r"\w+_at_\d+(_\d+)?$", "delays", part).rstrip("0123456789$").rstrip("_")


def fallen_apart(config: Config, usage: Mapping[str, Usage]) -> list[str]:
    """Memories that did not become what they should, in words."""
    slots = config.total_lanes * ACCUMULATOR_BITS
    problems = [f"{unit} has no block RAM" for unit in BLOCK_MEMORIES if not usage[unit].m10k]
    if usage["engine.array"].mlab < slots:
        problems.append(f"the slots take {usage['engine.array'].mlab} MLAB cells, not {slots}")
    return problems


def excesses(total: Usage) -> list[str]:
    """What does not fit, in words."""
    used = {"alms": total.alms, "m10k": total.m10k, "dsp": total.dsp}
    return [
        f"{name}: {used[name]:.0f} of {CHIP[name]} is {used[name] / CHIP[name]:.0%}, "
        f"more than {LIMITS[name]:.0%}"
        for name in CHIP
        if used[name] > LIMITS[name] * CHIP[name]
    ]


def table(usage: Mapping[str, Usage]) -> str:
    """The budget by unit as Markdown."""
    lines = [
        "| unit | ALM (est.) | M10K | MLAB cells | DSP | FF |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for unit, u in usage.items():
        if unit:
            lines.append(
                f"| {unit} | {u.alms:.0f} | {u.m10k} | {u.mlab} | {u.dsp:g} | {u.flip_flops} |"
            )
    total = usage[""]
    lines.append(
        f"| **all** | **{total.alms:.0f}** ({total.alms / CHIP['alms']:.0%}) | **{total.m10k}** "
        f"({total.m10k / CHIP['m10k']:.0%}) | {total.mlab} | **{total.dsp:g}** "
        f"({total.dsp / CHIP['dsp']:.0%}) | {total.flip_flops} |"
    )
    return "\n".join(lines)


def synthesize(config: Config, board: str | None = None) -> dict[str, Usage]:
    """The whole accelerator of `config` by unit, with the board's bridges where one is named."""
    from ..accelerator import Accelerator
    from ..boards.de1_soc import De1SocFabric

    return measure(De1SocFabric(config) if board == "de1_soc" else Accelerator(config))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="DE1_SOC", choices=PRESETS, help="preset to build")
    parser.add_argument("--board", choices=["de1_soc"], help="with the bridges around it")
    parser.add_argument("--page", type=Path, help="write the table to this page as well")
    arguments = parser.parse_args()
    config = preset(arguments.config)
    print(
        f"Synthesising {config.name} ({config.total_lanes} lanes) with Yosys; this takes minutes.",
        file=sys.stderr,
    )
    try:
        usage = synthesize(config, arguments.board)
    except SynthesisError as error:
        print(error, file=sys.stderr)
        return 1
    where = f" on {arguments.board}" if arguments.board else ""
    lanes = f"{config.total_lanes} lanes"
    print(f"{config.name}{where}: {lanes}, Yosys {SYNTHESIS}\n\n{table(usage)}")
    if arguments.page:
        limits = ", ".join(f"{name} {share:.0%}" for name, share in LIMITS.items())
        page = PAGE.format(
            name=config.name, lanes=config.total_lanes, limits=limits, table=table(usage)
        )
        arguments.page.write_text(page)
    problems = excesses(usage[""]) + fallen_apart(config, usage)
    for problem in problems:
        print(f"does not fit the DE1-SoC: {problem}", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
