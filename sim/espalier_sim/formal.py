"""Bounded proofs: every behaviour of a component up to a number of cycles, by Yosys' SAT solver.

The component carries its own `Assert` statements; its inputs are free in every cycle, `AnyConst`
values free once. (z3 behind SymbiYosys took over ten times as long on the same statements.)
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from amaranth.hdl import Elaboratable

from espalier.errors import DeviceError
from espalier_hw.rtlil import convert
from espalier_hw.synthesis.yosys import SynthesisError, yosys

SCRIPT = """read_rtlil design.il
prep -flatten -top top
async2sync
chformal -lower
memory_map
opt -full
techmap
opt -fast
abc -g AND,XOR,MUX
opt_clean
sat -tempinduct -tempinduct-baseonly -maxsteps {depth} -set-init-zero -set rst 0 {goal} top
"""
PROVED = "proved base case"
STEPS = re.compile(PROVED + r" for (\d+) steps")
REFUTED = "FAIL!"


class ProofFailed(AssertionError):
    """A statement does not hold; the message has the state and the inputs that show it."""


def prove(component: Elaboratable, depth: int) -> int:
    """No assertion of `component` fails in the first `depth` cycles after power-up; the cycles that
    the solver says to have covered.

    Raises ProofFailed, and DeviceError when Yosys is missing or refuses the component.
    """
    log = _run(component, depth, "-prove-asserts")
    if PROVED not in log:
        raise ProofFailed(log[-6000:])
    return max(int(steps) for steps in STEPS.findall(log))


def reach(component: Elaboratable, depth: int) -> bool:
    """The output `reached` of `component` is 1 in some cycle of some behaviour: the statements
    around it leave room for what they are about. Raises as `prove`.
    """
    log = _run(component, depth, "-prove reached 0")
    if PROVED in log:
        raise ProofFailed(f"`reached` stays 0 for {depth} cycles, whatever the inputs")
    return REFUTED in log


def _run(component: Elaboratable, depth: int, goal: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "design.il").write_text(convert(component))
        try:
            log = yosys(SCRIPT.format(depth=depth, goal=goal), Path(folder))
        except SynthesisError as error:
            raise DeviceError(f"the proof could not be run: {error}") from error
    if (PROVED in log) == (REFUTED in log):
        raise DeviceError(f"the proof came to no end:\n{log[-2000:]}")
    return log
