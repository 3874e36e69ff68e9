"""Where a transformer's cycles and DDR bytes go, from the reference machine's exact trace.

`shares` splits the cycles of `espalier.perf`; `traffic` counts the trace's bytes by purpose, and
`budget` says from the model's sizes alone what they should be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espalier.compiler.tokens.placement import stored_bytes
from espalier.compiler.tokens.registers import IMAGE
from espalier.perf import covered, simulate
from espalier.perf.trace import Step
from espalier.program import Program
from espalier.spec.config import BEAT_BYTES, Config
from espalier.spec.isa import INSTRUCTION_BYTES, Instruction, Opcode, Sums
from espalier.spec.tokens import Register


def shares(config: Config, steps: Sequence[Step]) -> dict[str, float]:
    """Shares of all cycles, 1 together: a projection's product is under way; one of attention;
    none, but the vector unit works; nothing of these, so everything waits (for loads, for results
    on their way, for instructions)."""
    attention = attention_places([step.instruction for step in _by_place(steps)])
    places = [step.pc for step in steps if step.instruction.opcode is Opcode.PRODUCT]
    timeline = simulate(config, steps)
    cycles, products = timeline.cycles, timeline.products
    projecting = [
        product for pc, product in zip(places, products, strict=True) if pc not in attention
    ]
    first, second = covered(projecting), covered(products)
    third = covered([*products, *timeline.vectors])
    ends = (0, first, second, min(third, cycles), cycles)
    names = ("projections", "attention", "vector_unit", "waiting")
    return {
        name: round((b - a) / cycles, 4)
        for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)
    }


def _by_place(steps: Sequence[Step]) -> list[Step]:
    """One step for every place in the program from 0 on; what was not executed is like a SET."""
    known = {step.pc: step for step in steps}
    idle = Step(0, Instruction(Opcode.HALT), None)
    return [known.get(pc, idle) for pc in range(max(known) + 1)]


def attention_places(code: Sequence[Instruction]) -> set[int]:
    """The places of attention's loops over the queries, which make exponentials and sum them, each
    with what leads to it."""
    found: set[int] = set()
    for pc, i in enumerate(code):
        if i.opcode is Opcode.VECTOR and i["sums"] == Sums.MASS:
            first = max(n for n in range(pc) if code[n].opcode is Opcode.LOOP)
            last = code[first]["end"]
            ends = (n for n in range(first) if code[n].opcode in (Opcode.LOOP, Opcode.END))
            found |= set(range(max(ends, default=-1) + 1, last + 1))
    return found


def traffic(steps: Sequence[Step]) -> dict[str, int]:
    """DDR bytes of a run: of the image, of cached keys and values, of rows (input and record) that
    are read, and of all rows that are written (record, cache, output)."""
    bytes_of = dict.fromkeys(("image", "cache", "rows_read", "rows_written"), 0)
    for step in steps:
        i = step.instruction
        if i.opcode is Opcode.EXPAND:
            bytes_of["cache"] += int(step.work) * BEAT_BYTES
        elif i.opcode is Opcode.LOAD:
            model = i["register"] in (IMAGE, Register.SETS)
            bytes_of["image" if model else "rows_read"] += int(step.work) * BEAT_BYTES
        elif i.opcode is Opcode.VECTOR:
            bytes_of["rows_written"] += int(np.asarray(step.work)[1]) * BEAT_BYTES
    return bytes_of


def budget(program: Program, tokens: int, layers: int, width: int, inner: int) -> dict[str, int]:
    """The bytes that `traffic` should count for BERT with weights that are read once: all data of
    the image, and a set of key descriptors a layer; cached rows once a layer; and of a token

    - written: the embedding; in each layer query, context, the attention's and the layer's result
      with columns, the inner columns, a row of keys and values; the output.
    - read: the input; in each layer what was written but the row; the last result.

    Not in it: what equal layers load early for the one after the last, and rows ahead of a sequence
    or behind it (`spec.tokens.AHEAD`), which a loop over pairs of tokens moves without using them.
    """
    plan, (given,), (result,) = program.tokens, program.inputs, program.outputs
    assert plan is not None
    values, columns, inside = (
        stored_bytes(program.config, elements, columns=short)
        for elements, short in ((width, False), (width, True), (inner, True))
    )
    layer = 4 * columns + 2 * values + inside
    once = values + columns + layers * (layer + plan.row_bytes) + result.stride_bytes
    return {
        "image": plan.sets - program.instructions * INSTRUCTION_BYTES + layers * plan.set_bytes,
        "cache": layers * tokens * plan.row_bytes,
        "rows_read": tokens * (given.stride_bytes + layers * layer + values),
        "rows_written": tokens * once,
    }
