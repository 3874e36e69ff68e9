"""`espalier inspect`: what a program is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..program import Program
from ..spec import isa
from .memory_map import ddr_map, usage
from .shared import console, load, size


def inspect_command(
    program: Annotated[Path, typer.Argument(help="Program file.")],
    disassembly: Annotated[bool, typer.Option(help="Show the instructions as well.")] = True,
) -> None:
    """Show a program: ports, layers, memory map, instructions."""
    loaded = load(program)
    config = loaded.config
    console.print(
        f"{program}: contract {isa.VERSION}, {config.name} ({config.arrays} arrays x "
        f"{config.lanes} lanes, identity {config.identity:#010x}), {size(len(loaded.image))}, "
        f"{loaded.instructions} instructions",
        highlight=False,
    )
    if loaded.tokens is not None:
        for line in token_lines(loaded):
            console.print(line, highlight=False, markup=False)
    elif loaded.whole_sequence:
        console.print("Needs whole sequences: it cannot be run step by step.")
    for name, value in loaded.notes.items():
        if isinstance(value, str | int | float):
            console.print(f"{name.replace('_', ' ')}: {value}", highlight=False, markup=False)
    for table in (ports(loaded), layers(loaded), chip(loaded), ddr(loaded)):
        console.print(table)
    if disassembly:
        for line in listing(loaded):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def token_lines(program: Program) -> list[str]:
    """What a transformer's program takes, and what of the model stays on the host."""
    plan, host = program.tokens, program.host
    assert plan is not None
    how = "a sequence can be continued token by token" if plan.causal else "whole sequences only"
    lines = [f"A transformer: at most {plan.most_tokens} tokens, {how}."]
    for number, block in enumerate(program.notes.get("passes", [])):
        lines.append(f"passes of block {number}: {'; '.join(block)}")
    if host is None:
        return [*lines, "On the host: nothing, inputs and outputs are integers."]
    tables = ", ".join(
        f"{len(table.rows)} x {host.input.width} by {table.index or 'nothing'}"
        for table in host.input.tables
    )
    before = f"embedding ({tables})" if tables else "quantization"
    if host.input.norm is not None:
        before += " and its LayerNorm"
    lines.append(f"On the host before: {before}.")
    for name, output in host.outputs.items():
        layers = ", ".join(
            f"{' x '.join(map(str, layer.weight.shape))} {layer.activation or ''}".strip()
            for layer in output.layers
        )
        after = f"the first token through {layers}" if output.first else "nothing"
        lines.append(f"On the host after, for {name}: {after}.")
    return lines


def ports(program: Program) -> Table:
    table = Table("port", "shape", "kind", "scale", "bytes a step", title="Inputs and outputs")
    for direction, group in (("in", program.inputs), ("out", program.outputs)):
        for port in group:
            names = {port.batch_axis: "batch", port.time_axis: "time"}
            shape = ", ".join(names.get(axis, str(n)) for axis, n in enumerate(port.shape))
            optional = ", optional" if port.optional else ""
            table.add_row(
                f"{direction} {port.name}{optional}",
                f"\\[{shape}]",
                str(port.kind),
                f"{port.scale:.6g}",
                str(port.stride_bytes),
            )
    return table


def layers(program: Program) -> Table:
    table = Table(
        "layer",
        "rows x columns",
        "bits",
        "weights kept",
        "density",
        "padding",
        "bytes",
        title="Layers",
    )
    for layer in program.layers:
        planes = layer.bit_width // 4
        padding = 1 - min(1, layer.kept * planes / layer.entries) if layer.entries else 0
        table.add_row(
            layer.name if layer.per_step else f"{layer.name} (once)",
            f"{layer.rows} x {layer.columns}",
            str(layer.bit_width),
            f"{layer.kept:,}",
            f"{layer.kept / (layer.rows * layer.columns):.1%}",
            f"{padding:.1%}",
            size(layer.entries * 10 / 8),
        )
    return table


def chip(program: Program) -> Table:
    table = Table("memory", "used", "of", "share", title="On the chip (addresses)")
    for memory, (used, depth) in usage(program).items():
        table.add_row(memory.name.lower(), f"{used}", f"{depth}", f"{used / depth:.0%}")
    return table


def ddr(program: Program) -> Table:
    table = Table("what", "from", "to", "size", title="In DDR, window offsets, for one time step")
    for name, first, end in ddr_map(program):
        table.add_row(name, f"{first:#x}", f"{end:#x}", size(end - first))
    return table


def listing(program: Program) -> list[str]:
    """The disassembly: entry points as labels, loops indented, memory loads with their names."""
    labels = {pc: name for name, pc in program.entries.items()}
    lines, depth = [], 1
    for pc, instruction in enumerate(program.decode()):
        if pc in labels:
            lines.append(f"{labels[pc]}:")
        if instruction.opcode is isa.Opcode.END:
            depth -= 1
        lines.append(f"{pc:5}{'  ' * depth}{isa.disassemble(instruction)}")
        if instruction.opcode is isa.Opcode.LOOP:
            depth += 1
    return lines
