"""Which instructions a program executes, and the work each one is expected to do, without any data.

Control flow of a program depends on the number of steps only, so its trace is known before anything
runs. The work of a PRODUCT is taken from the column counts in the program's own image: every column
is visited with probability `nonzero`. The reference machine's observer yields the same kind of
trace with exact work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..program import Program
from ..spec import expansion, isa
from ..spec.config import BEAT_BYTES, Config
from ..spec.fields import Layout
from ..spec.interface import STEPS_REGISTER
from ..spec.isa import Instruction, Mode, Opcode, Store
from ..spec.memory import COUNT_BITS, Memory, beats, descriptor
from ..spec.stores import stored_bytes

MASK32 = (1 << 32) - 1


@dataclass(frozen=True)
class Step:
    """One executed instruction. `work` is [A, 2] (visits, words) per array for a PRODUCT, [2]
    (chunks, DDR beats) for a VECTOR, DDR beats for LOAD and EXPAND."""

    pc: int
    instruction: Instruction
    work: np.ndarray | int | None


def store_beats(config: Config, instruction: Instruction) -> int:
    """DDR beats that a VECTOR writes."""
    kind = Store(instruction["store"])
    return stored_bytes(config, kind, instruction["count"]) // BEAT_BYTES


def trace(program: Program, entry: str, steps: int, nonzero: float = 1.0) -> Iterator[Step]:
    """The instructions from `entry` to HALT for `steps` time steps, with expected work.

    nonzero: share of the columns that are visited, 0..1.
    """
    walk = _Walk(program, nonzero)
    if entry != "setup":
        for _ in walk.run(program.entries["setup"], 0):
            pass
    return walk.run(program.entries[entry], steps)


class _Walk:
    """Control flow of a machine that computes nothing but its descriptor memory."""

    def __init__(self, program: Program, nonzero: float):
        self.program, self.nonzero = program, nonzero
        self.code = program.decode()
        c = program.config
        self.counts = np.zeros((c.arrays, c.descriptor_depth, c.group), np.int64)

    def _load_descriptors(self, i: Instruction, address: int) -> None:
        c = self.program.config
        size = beats(c, Memory.DESCRIPTORS, i["count"]) * BEAT_BYTES
        raw = self.program.image[address : address + size]
        if len(raw) < size:
            return
        words = raw.view("<u8").reshape(c.arrays, -1)[:, : i["count"]]
        layout: Layout = descriptor(c)
        for column in range(c.group):
            shift = np.uint64(layout.offsets()[f"count{column}"])
            count = (words >> shift) & np.uint64((1 << COUNT_BITS) - 1)
            self.counts[:, i["address"] : i["address"] + i["count"], column] = count

    def run(self, entry: int, steps: int) -> Iterator[Step]:
        registers = [0] * isa.REGISTERS
        registers[STEPS_REGISTER] = steps
        if self.program.tokens is not None and steps:
            for register, value in self.program.tokens.registers(0, steps).items():
                registers[register] = value
        loops: list[list[int]] = []
        pc = entry
        while True:
            i, following = self.code[pc], pc + 1
            if i.opcode is Opcode.SET:
                source = registers[i["source"]] if i["use_source"] else 0
                registers[i["target"]] = (source + i["value"]) & MASK32
            elif i.opcode is Opcode.LOOP:
                count = registers[i["register"]] if i["use_register"] else i["count"]
                if count:
                    loops.append([pc + 1, count])
                else:
                    following = i["end"] + 1
            elif i.opcode is Opcode.END:
                loops[-1][1] -= 1
                if loops[-1][1]:
                    following = loops[-1][0]
                else:
                    loops.pop()
            yield Step(pc, i, self._work(i, registers))
            if i.opcode is Opcode.HALT:
                return
            pc = following

    def _work(self, i: Instruction, registers: list[int]) -> np.ndarray | int | None:
        if i.opcode is Opcode.LOAD:
            address = (registers[i["register"]] + i["offset"]) & MASK32
            registers[i["register"]] = (registers[i["register"]] + i["increment"]) & MASK32
            if i["memory"] == Memory.DESCRIPTORS:
                self._load_descriptors(i, address)
            return beats(self.program.config, Memory(i["memory"]), i["count"])
        if i.opcode is Opcode.VECTOR:
            chunks = i["count"]
            if i["bounded"]:
                lanes = self.program.config.vector_lanes
                chunks = min(max(-(-registers[i["register"]] // lanes), 1), chunks)
            return np.array([chunks, store_beats(self.program.config, i)])
        if i.opcode is Opcode.EXPAND:
            tokens = min(max(registers[i["tokens"]], 1), i["most"])
            return tokens * expansion.row_bytes(i.fields, self.program.config) // BEAT_BYTES
        if i.opcode is Opcode.PRODUCT:
            if i["mode"] == Mode.CLEAR:
                return np.zeros((self.program.config.arrays, 2))
            counts = self.counts[:, i["descriptors"] : i["descriptors"] + i["groups"]]
            return self.nonzero * np.stack([(counts > 0).sum((1, 2)), counts.sum((1, 2))], 1)
        return None
