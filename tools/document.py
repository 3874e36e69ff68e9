#!/usr/bin/env python3
"""Write docs/isa.md, docs/format.md and docs/link.md from the contract; with --check, only say
whether they are current."""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterable
from dataclasses import fields
from enum import Enum
from itertools import chain
from pathlib import Path
from textwrap import dedent
from types import ModuleType

from espalier.program import FORMAT, Program
from espalier.spec import (
    config,
    interface,
    isa,
    link,
    memory,
    numerics,
    registers,
    tokens,
)  # fmt: skip
from espalier.spec.fields import Layout

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTICE = (
    "<!-- Written by tools/document.py from espalier.spec: change the contract, not this page. -->"
)

OPERATIONS = {
    isa.Opcode.HALT: "Ends the run: STATUS becomes DONE once every unit is idle.",
    isa.Opcode.SET: "`target = value`, or `source + value`, modulo 2^32.",
    isa.Opcode.LOOP: "Repeats the instructions up to the matching END; nests to a depth of "
    f"{isa.LOOP_DEPTH}. The count is taken once, at entry.",
    isa.Opcode.END: "Closes the innermost loop.",
    isa.Opcode.LOAD: "DDR to an on-chip memory, from `register + offset`; afterwards `register += "
    "increment`.",
    isa.Opcode.PRODUCT: "Column engine: in every array, visit the columns that have something to "
    "send and add "
    "`weight · sent` into the slots of their rows. Sums wrap at "
    f"{config.ACCUMULATOR_BITS} bits, harmlessly: the compiler proves that final values fit.",
    isa.Opcode.VECTOR: "Vector unit, chunk after chunk of V elements, each through the same stages "
    "in this order. With `bounded` only so many elements count as the register says (at least "
    "one, at most `count` chunks): chunks behind them are left out, results behind them are 0.",
    isa.Opcode.EXPAND: "DDR to weight memory: rows of column inputs, one a token, become weights "
    "of two digits, as attention's keys or values ([format.md](format.md), Memories). `tokens` "
    "counts as at least 1 and at most `most`.",
}

WEIGHTS = """
A matrix of M rows and N columns is multiplied column by column: y += W[:, j]·x[j] for every x[j]
that is not 0.

- **Digits.** A weight of 4 bits is one balanced base-16 digit, a weight of 8 bits two: w = 16·high
  + low. A digit plane is further rows; planes are joined when the slots are drained.
- **Rows.** Every block of rows (a gate) starts at a slot boundary: row i lies in lane i mod L, slot
  first + i div L, and so does every further digit plane of it.
- **Columns.** Columns are dealt to the A arrays in groups of G: column c is group c div G, which
  array (c div G) mod A holds as its group first + (c div G) div A, byte c mod G.
- **Words.** Column j is k_j words, 0 included, of one entry a lane: k_j is the most digits that a
  lane has in that column, and lanes with fewer are padded with digit 0. Column-balanced compression
  leaves every lane the same number, so that nothing is padded whatever the density.
"""

ENUMERATIONS = (
    isa.Mode, isa.Source, isa.Sums, isa.Scale, isa.Combine, isa.Function, isa.Finish, isa.Store,
    isa.Expand,
)  # fmt: skip

STAGES = [
    (
        "source",
        "t = 0, the slots summed over arrays (cleared by that; two planes give low + 16·high), or "
        "operand 0",
    ),
    ("sums", f"t + stored sum, or t stored, modulo 2^{config.SUM_BITS}"),
    (
        "scale",
        "v = scale_sum(t, multiplier, 2^shift, bias) of the row's parameters or of a scalar, or t; "
        "saturated to 16 bits",
    ),
    ("combine", "v + operand 1, multiply_values or amplify(v, operand 1); saturated"),
    ("function", "ReLU, or a table: table_value of the segment that v lies in; saturated"),
    (
        "finish",
        "interpolate(v, operand 2, operand 0) = v + operand2·(operand0 − v), or v + operand 2; "
        "saturated",
    ),
    ("reduction", "of all results into a scalar, instead of the sum memory's part"),
    ("outputs", "any of: vector memory, column inputs (column_input(v), saturated to ±127), DDR"),
]


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines
    )


def member_notes(owner: type, module: ModuleType) -> dict[str, str]:
    """The string below each member of a class, which Python itself does not keep."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            return dict(_notes(node.body))
    raise ValueError(f"{owner.__name__} is not in {module.__name__}")


def _notes(body: list[ast.stmt]) -> Iterable[tuple[str, str]]:
    for statement, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            text = (
                after.value.value
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                else ""
            )
            yield ast.unparse(target), " ".join(str(text).split())


def enumeration(owner: type[Enum], module: ModuleType) -> str:
    notes = member_notes(owner, module)
    text = inspect.cleandoc(owner.__dict__.get("__doc__") or "")
    rows = [(m.value, f"`{m.name.lower()}`", notes.get(m.name, "")) for m in owner]
    return f"**{owner.__name__}** {text}\n\n{table(('value', 'name', 'meaning'), rows)}"


def layout(declared: Layout, *, skip: int = 0) -> str:
    """Bits, name, range and meaning of a layout's fields; long runs of equal ones are cut short."""
    offsets = declared.offsets()
    rows = []
    for field in declared.fields[skip:]:
        first, last = offsets[field.name], offsets[field.name] + field.width - 1
        bits = str(first) if first == last else f"{last}:{first}"
        rows.append((bits, f"`{field.name}`", f"{field.low}..{field.high}", _meaning(field)))
    return table(("bits", "field", "range", "meaning"), rows)


def _meaning(field: object) -> str:
    return field.meaning + (f" ({field.choices.__name__})" if field.choices is not None else "")


def instruction(opcode: isa.Opcode) -> str:
    own = 1 + len(isa.waits_for(opcode))
    declared = isa.LAYOUTS[opcode]
    parts = [f"### {opcode.name} (opcode {opcode.value})", OPERATIONS[opcode]]
    if opcode is isa.Opcode.VECTOR:
        parts.append(
            "\n".join(f"{n}. **{name}**: {text}" for n, (name, text) in enumerate(STAGES, 1))
        )
    if len(declared.fields) > own:
        parts.append(layout(declared, skip=own))
    return "\n\n".join(parts)


def register_map() -> str:
    rows = []
    for name, register in registers.REGISTERS.items():
        if not name.endswith("_HIGH") and name not in [f"R{n}" for n in range(1, isa.REGISTERS)]:
            rows.append((f"`{register.address:#04x}`", name, register.access, register.meaning))
    return (
        table(("address", "name", "access", "meaning"), rows)
        + "\n\nR1 to R15 follow R0 at distances of 4 bytes. The upper half of every "
        "counter (`_HIGH`) follows its lower half."
    )


def isa_page() -> str:
    common = Layout("common", isa.INSTRUCTION_BITS, isa.LAYOUTS[isa.Opcode.HALT].fields)
    parts = [
        NOTICE, f"# Instruction set, version {isa.VERSION}", dedent(isa.__doc__).strip(),
        "The reference machine (`sim/espalier_sim/reference/machine.py`) is its living definition; "
        "numerics and memory formats are in [format.md](format.md).",
        "## Encoding",
        f"An instruction has {isa.INSTRUCTION_BITS} bits, little-endian in DDR. Bits without a "
        f"field are 0. All start with:",
        layout(common),
        "## Instructions", *(instruction(opcode) for opcode in isa.Opcode),
        "## Enumerations",
        *(enumeration(owner, isa) for owner in ENUMERATIONS),
        enumeration(memory.Memory, memory),
        "## Registers",
        f"The AXI4-Lite slave has {registers.SIZE_BYTES} bytes of 32-bit registers.",
        register_map(),
        enumeration(registers.Control, registers),
        enumeration(registers.Status, registers),
        enumeration(registers.Fault, registers),
        f"**Counters** {module_note(registers, 'COUNTERS')}",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def module_note(module: ModuleType, name: str) -> str:
    """The string below a module's constant."""
    return dict(_notes(ast.parse(inspect.getsource(module)).body))[name]


def constants(module: ModuleType) -> str:
    """Named integers of a module with the text below them, several on one line as the source has
    them."""
    rows = []
    for names, text in _notes(ast.parse(inspect.getsource(module)).body):
        plain = names.strip("()").split(", ")
        values = [getattr(module, name) for name in plain]
        if all(name.isupper() for name in plain) and all(
            isinstance(v, int | float) for v in values
        ):
            rows.append((", ".join(f"`{n}`" for n in plain), ", ".join(map(str, values)), text))
    return table(("name", "value", "meaning"), rows)


def functions(module: ModuleType) -> str:
    rows = []
    for name, function in inspect.getmembers(module, inspect.isfunction):
        text = (inspect.getdoc(function) or "").split("\n\n")[0]
        if function.__module__ == module.__name__ and text:
            arguments = ", ".join(inspect.signature(function).parameters)
            rows.append((f"`{name}({arguments})`", " ".join(text.split())))
    return table(("function", "result"), rows)


def presets() -> str:
    names = [field.name for field in fields(config.Config) if field.name != "name"]
    rows = [(f"`{name}`", *(getattr(p, name) for p in config.PRESETS.values())) for name in names]
    rows.append(("`identity`", *(f"{p.identity:#010x}" for p in config.PRESETS.values())))
    return table(("size", *config.PRESETS), rows)


def record(owner: type) -> str:
    text, _, parameters = (inspect.getdoc(owner) or "").partition("Parameters\n----------\n")
    listed = f"\n\n```text\n{parameters}\n```" if parameters else ""
    return f"**{owner.__name__}** {text.strip()}{listed}"


def format_page() -> str:
    parameters = "\n".join((inspect.getdoc(config.Config) or "").splitlines()[2:])
    parts = [
        NOTICE, f"# Formats, version {isa.VERSION}",
        "What weights, activations and programs are made of. The instructions that use them are in "
        "[isa.md](isa.md).",
        "## Sizes",
        f"```text\n{parameters.split('Raises')[0].strip()}\n```", presets(), constants(config),
        "## Numerics", dedent(numerics.__doc__).strip(), constants(numerics), functions(numerics),
        "## Weights", WEIGHTS.strip(),
        "## Memories", f"```text\n{dedent(memory.__doc__).strip()}\n```",
        "### Entry: one weight",
        "One weight digit in one lane. A padding entry has digit 0.", layout(memory.ENTRY),
        "### Descriptor: one group of columns, here of 8",
        "Where a group's columns lie: the first column's words at `base`, the next right after it, "
        "and so on.",
        layout(memory.descriptor(config.DE1_SOC)),
        "### Parameter: one row", layout(memory.PARAMETER),
        "### Table entry: one segment", layout(memory.TABLE_ENTRY),
        "## Program", dedent(interface.__doc__).strip(),
        f"A program file is one safetensors file with the tensor `image` (uint8) and string "
        f"metadata: `format` is "
        f"`{FORMAT}`, `version` is `{isa.VERSION}`, `program` is a JSON text with everything "
        f"below, `checksum` is the SHA-256 "
        "of that text, a zero byte, the image and the host's arrays (each a zero byte, its name, "
        "a zero byte, its bytes). Nothing in it is ever executed by the host.",
        dedent(tokens.__doc__).strip(), enumeration(tokens.Register, tokens),
        *(record(owner) for owner in (Program, interface.Port, interface.Scratch, interface.Layer,
            tokens.TokenPlan)),
        enumeration(interface.Kind, interface),
        f"{module_note(interface, 'ENTRIES')} They are called {', '.join(interface.ENTRIES)}.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def link_page() -> str:
    summary, _, rules = dedent(link.__doc__).strip().partition("\n\n")
    parts = [
        NOTICE, f"# Serial link, version {link.VERSION}", summary, rules,
        constants(link),
        "## Commands", enumeration(link.Command, link),
        "## Status", enumeration(link.Status, link),
        "## Fields",
        *chain.from_iterable(
            (f"**{item.name.capitalize()}**, {item.width // 8} bytes", layout(item))
            for item in (link.REQUEST, link.REPLY_HEADER, link.GREETING)
        ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


PAGES = {"isa.md": isa_page, "format.md": format_page, "link.md": link_page}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when a page is not current"
    )
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    verb = "not current, run tools/document.py" if check else "written"
    print(f"{', '.join(stale)}: {verb}" if stale else "current")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
