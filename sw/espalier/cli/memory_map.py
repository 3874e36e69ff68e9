"""Where a program's things lie: highest address of every on-chip memory, and the window of DDR."""

from __future__ import annotations

from collections.abc import Mapping

from ..program import Program
from ..spec import isa
from ..spec.config import Config
from ..spec.isa import Finish, Function, Instruction, Mode, Opcode, Scale, Source, Sums
from ..spec.memory import Memory, depth, items_per_address
from ..spec.numerics import TABLE_SEGMENTS


def usage(program: Program) -> dict[Memory, tuple[int, int]]:
    """(addresses up to the highest that any instruction touches, depth) of every memory."""
    used = dict.fromkeys(Memory, 0)
    used[Memory.PROGRAM] = program.instructions
    for instruction in program.decode():
        for memory, end in _touched(instruction, program.config):
            used[memory] = max(used[memory], end)
    return {memory: (used[memory], depth(program.config, memory)) for memory in Memory}


def _touched(instruction: Instruction, config: Config) -> list[tuple[Memory, int]]:
    f = instruction.fields
    if instruction.opcode is Opcode.LOAD:
        memory = Memory(f["memory"])
        whole = memory in (Memory.PROGRAM, Memory.WEIGHTS, Memory.DESCRIPTORS)
        addresses = f["count"] if whole else -(-f["count"] // items_per_address(config, memory))
        return [(memory, f["address"] + addresses)]
    if instruction.opcode is Opcode.PRODUCT:
        return _product(f)
    if instruction.opcode is Opcode.VECTOR:
        return _vector(f, config)
    return []


def _product(f: Mapping[str, int]) -> list[tuple[Memory, int]]:
    ends = [(Memory.ACTIVATIONS, f["activations"] + f["groups"])]
    if f["mode"] != Mode.CLEAR:
        ends.append((Memory.DESCRIPTORS, f["descriptors"] + f["groups"]))
    return ends


def _vector(f: Mapping[str, int], config: Config) -> list[tuple[Memory, int]]:
    n = f["count"]
    uses = [
        (Sums.NONE < f["sums"] < Sums.MAXIMUM, Memory.SUMS, "sum_address"),
        (f["scale"] == Scale.ROWS, Memory.PARAMETERS, "parameters"),
        (
            f["source"] == Source.OPERAND or f["finish"] == Finish.INTERPOLATE,
            Memory.VECTOR,
            "operand0",
        ),
        (f["combine"], Memory.VECTOR, "operand1"),
        (f["finish"], Memory.VECTOR, "operand2"),
        (f["write_vector"], Memory.VECTOR, "vector_address"),
    ]
    ends = [(memory, f[name] + n) for condition, memory, name in uses if condition]
    if f["write_columns"]:
        words = -(-n * config.chunk_groups // config.arrays)
        ends.append((Memory.ACTIVATIONS, f["column_address"] + words))
    if f["function"] >= Function.TABLE0:
        ends.append((Memory.TABLES, (f["function"] - Function.TABLE0 + 1) * TABLE_SEGMENTS))
    return ends


def ddr_map(program: Program, steps: int = 1) -> list[tuple[str, int, int]]:
    """(name, first byte, end) of everything in the window, in its order."""
    from ..runtime.buffers import plan

    code = program.instructions * isa.INSTRUCTION_BYTES
    places = [("instructions", 0, code), ("weights, parameters, tables", code, len(program.image))]
    if program.tokens is not None:
        return [*places, *_token_buffers(program)]
    buffers = plan(program, steps)
    for port in (*program.inputs, *program.outputs):
        first = buffers.offsets[port.name]
        places.append(
            (port.name, first, first + port.stride_bytes * (1 if port.time_axis is None else steps))
        )
    for number, scratch in enumerate(program.scratch):
        first = buffers.registers[scratch.register]
        places.append((f"scratch {number}", first, first + steps * scratch.stride_bytes))
    return sorted(places, key=lambda place: place[1])


def _token_buffers(program: Program) -> list[tuple[str, int, int]]:
    from ..runtime.token_buffers import TokenBuffers
    from ..spec.tokens import AHEAD

    buffers = TokenBuffers.of(program, 1 << 32)
    starts = {
        program.inputs[0].name: buffers.input,
        program.outputs[0].name: buffers.output,
        "records": buffers.record - AHEAD * buffers.plan.record_bytes,
        "keys and values": buffers.cache,
    }
    return [
        (name, first, end)
        for (name, first), end in zip(
            starts.items(), [*list(starts.values())[1:], buffers.end], strict=True
        )
    ]
