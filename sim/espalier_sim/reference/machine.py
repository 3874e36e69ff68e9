"""The reference machine: this is the living definition of the instruction set.

It executes a program strictly in order, one instruction after the other, on NumPy integers. The RTL
does the same work concurrently; its outputs, every word written to DDR and its event counters must
be equal to those here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from espalier.spec import checks, expansion, isa, numerics
from espalier.spec.config import ACCUMULATOR_BITS, BEAT_BYTES, ITEM_BYTES, SUM_BITS, Config
from espalier.spec.isa import (
    Combine,
    Finish,
    Function,
    Instruction,
    Mode,
    Opcode,
    Scale,
    Source,
    Store,
    Sums,
)
from espalier.spec.memory import Memory, beats
from espalier.spec.registers import COUNTERS, Fault

from .memories import Memories, expand_rows

MASK32 = (1 << 32) - 1
Observer = Callable[[int, Instruction, Any], None]
"""Called after each instruction with pc, instruction and its work: PRODUCT: int array [A, 2] of
(column visits with words, words) per array; VECTOR: int array (chunks, DDR beats); LOAD and EXPAND:
DDR beats; others None."""


class FaultRaised(Exception):
    """The machine stops; `cause` and `address` go to the registers."""

    def __init__(self, cause: Fault, address: int = 0):
        super().__init__(cause.name)
        self.cause, self.address = cause, address


class UndefinedError(Exception):
    """The program does something whose result the contract leaves open: a compiler's error, never a
    user's."""


def wrap(value: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement of `bits` bits."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


def saturate(value: np.ndarray) -> np.ndarray:
    return np.clip(value, numerics.VALUE_MIN, numerics.VALUE_MAX)


def columns(value: np.ndarray) -> np.ndarray:
    return numerics.column_input(value).clip(numerics.COLUMN_MIN, numerics.COLUMN_MAX)


class Machine:
    """Registers, memories and a window of DDR.

    Parameters
    ----------
    config: sizes.
    window: the DDR window, changed in place; addresses of the program are offsets into it.
    observer: called after every instruction (see `Observer`).
    """

    def __init__(self, config: Config, window: bytearray, observer: Observer | None = None):
        self.config, self.window, self.observer = config, window, observer
        self.window_size = len(window)
        self.memories = Memories(config)
        self.registers = [0] * isa.REGISTERS
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.written: list[tuple[int, bytes]] = []
        """(offset, 16 bytes) of every beat written since the last start, in order."""
        self.dirty = False
        """A fault stopped a program: the slots hold anything."""
        self.pc = 0
        self._decoded: dict[int, Instruction] = {}
        """Instructions by word: most are met many times."""
        self._execute = {
            Opcode.HALT: lambda _: None,
            Opcode.SET: self._set,
            Opcode.LOOP: self._loop,
            Opcode.END: self._end,
            Opcode.LOAD: self._load_memory,
            Opcode.PRODUCT: self._product,
            Opcode.VECTOR: self._vector,
            Opcode.EXPAND: self._expand,
        }

    def load_program(self, length: int) -> None:
        """What Control.LOAD_PROGRAM does. Raises FaultRaised when the program does not fit memory
        or window."""
        if length > self.config.program_depth:
            raise FaultRaised(Fault.ILLEGAL_INSTRUCTION)
        if length:
            self._load(Memory.PROGRAM, 0, length, 0)

    def start(self) -> None:
        """What every START does first: counters become zero, and slots that a fault left dirty."""
        if self.dirty:
            self.memories.slots[:] = 0
            self.dirty = False
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.written.clear()

    def run(self, entry: int, length: int) -> None:
        """Execute from `entry` until HALT. Raises FaultRaised; `pc` stays at the instruction."""
        self.pc = entry
        self._loops: list[list[int]] = []
        while True:
            if self.pc >= length:
                raise FaultRaised(Fault.ILLEGAL_INSTRUCTION)
            instruction = self._decode(self.memories.program[self.pc])
            self.counters["instructions"] += 1
            pc, self._next = self.pc, self.pc + 1
            work = self._execute[instruction.opcode](instruction)
            if self.observer is not None:
                self.observer(pc, instruction, work)
            if instruction.opcode is Opcode.HALT:
                return
            self.pc = self._next

    def _decode(self, word: int) -> Instruction:
        if word not in self._decoded:
            self._decoded[word] = self._checked(word)
        return self._decoded[word]

    def _checked(self, word: int) -> Instruction:
        if word & 15 not in list(Opcode):
            raise FaultRaised(Fault.ILLEGAL_INSTRUCTION)
        try:
            instruction = isa.decode(word)
            checks.check(instruction, self.config)
        except ValueError as error:
            raise UndefinedError(f"instruction {self.pc}: {error}") from error
        return instruction

    # Control

    def _set(self, i: Instruction) -> None:
        source = self.registers[i["source"]] if i["use_source"] else 0
        self.registers[i["target"]] = (source + i["value"]) & MASK32

    def _loop(self, i: Instruction) -> None:
        count = self.registers[i["register"]] if i["use_register"] else i["count"]
        if count == 0:
            self._next = i["end"] + 1
        elif len(self._loops) == isa.LOOP_DEPTH:
            raise FaultRaised(Fault.ILLEGAL_INSTRUCTION)
        else:
            self._loops.append([self.pc + 1, count])

    def _end(self, i: Instruction) -> None:
        if not self._loops:
            raise FaultRaised(Fault.ILLEGAL_INSTRUCTION)
        self._loops[-1][1] -= 1
        if self._loops[-1][1]:
            self._next = self._loops[-1][0]
        else:
            self._loops.pop()

    # DDR

    def _window_check(self, address: int, size: int) -> None:
        if address % BEAT_BYTES or address + size > self.window_size:
            raise FaultRaised(Fault.OUTSIDE_WINDOW, address)

    def _load(self, memory: Memory, chip_address: int, count: int, address: int) -> int:
        n = beats(self.config, memory, count)
        self._window_check(address, n * BEAT_BYTES)
        self.memories.load(
            memory, chip_address, count, bytes(self.window[address : address + n * BEAT_BYTES])
        )
        self.counters["read_beats"] += n
        return n

    def _store(self, address: int, values: np.ndarray) -> int:
        raw = values.tobytes()
        raw += bytes(-len(raw) % BEAT_BYTES)
        self._window_check(address, len(raw))
        self.window[address : address + len(raw)] = raw
        for i in range(0, len(raw), BEAT_BYTES):
            self.written.append((address + i, raw[i : i + BEAT_BYTES]))
        self.counters["write_beats"] += len(raw) // BEAT_BYTES
        return len(raw) // BEAT_BYTES

    def _load_memory(self, i: Instruction) -> int:
        address = (self.registers[i["register"]] + i["offset"]) & MASK32
        self.registers[i["register"]] = (self.registers[i["register"]] + i["increment"]) & MASK32
        return self._load(Memory(i["memory"]), i["address"], i["count"], address)

    # Column engine

    def _product(self, i: Instruction) -> np.ndarray | None:
        m, n = self.memories, i["groups"]
        x = m.activations[:, i["activations"] : i["activations"] + n]
        if i["mode"] == Mode.CLEAR:
            m.last[:, i["last"] : i["last"] + n] = 0
            return np.zeros((self.config.arrays, 2), np.int64)
        if i["mode"] == Mode.PLAIN:
            sent, visited = x, x != 0
        else:
            last = m.last[:, i["last"] : i["last"] + n]
            sent = x - last
            visited = np.abs(sent) > i["threshold"]
            if i["mode"] == Mode.COMMIT:
                last[visited] = x[visited]
        counts = m.counts[:, i["descriptors"] : i["descriptors"] + n]
        return self._visit(
            sent, visited, counts, m.bases[:, i["descriptors"] : i["descriptors"] + n]
        )

    def _visit(
        self, sent: np.ndarray, visited: np.ndarray, counts: np.ndarray, bases: np.ndarray
    ) -> np.ndarray:
        """Add every visited column's weights times `sent` into the slots. All arguments [A, groups,
        G] but bases."""
        m, c = self.memories, self.config
        starts = bases[:, :, None] + np.cumsum(counts, 2) - counts
        array, group, column = np.nonzero(visited & (counts > 0))
        k, x = counts[array, group, column], sent[array, group, column]
        k = k.astype(np.intp)  # NumPy repeats and counts by nothing wider, on 32-bit machines too
        times = 1 + (np.abs(x) > numerics.COLUMN_MAX)
        first = np.repeat(starts[array, group, column] - (np.cumsum(k) - k), k)
        word = first + np.arange(len(first))
        if len(word) and word.max() >= c.weight_depth:
            raise UndefinedError(f"instruction {self.pc}: a column lies beyond the weight memory")
        owner = np.repeat(array, k)
        products = m.digits[owner, word] * np.repeat(x, k)[:, None]
        flat = (
            owner[:, None] * m.slots.shape[1] + m.entry_slots[owner, word]
        ) * c.lanes + np.arange(c.lanes)
        flat = flat.astype(np.intp)
        total = np.bincount(flat.ravel(), weights=products.ravel(), minlength=m.slots.size)
        m.slots[:] = wrap(m.slots + total.astype(np.int64).reshape(m.slots.shape), ACCUMULATOR_BITS)
        twice = np.abs(sent[visited]) > numerics.COLUMN_MAX
        self.counters["visits"] += int(visited.sum() + twice.sum())
        self.counters["skipped"] += int(visited.size - visited.sum())
        self.counters["words"] += int((k * times).sum())
        work = np.zeros((c.arrays, 2), np.int64)
        np.add.at(work, array, np.stack([times, k * times], 1))
        return work

    # Attention's keys and values

    def _expand(self, i: Instruction) -> int:
        tokens = min(max(self.registers[i["tokens"]], 1), i["most"])
        address = (self.registers[i["register"]] + i["offset"]) & MASK32
        self._window_check(address, expansion.extent(i.fields, self.config, tokens))
        rows = expand_rows(self.window, address, tokens, i.fields, self.config)
        self.memories.expand(i.fields, rows)
        beats_read = rows.size // BEAT_BYTES
        self.counters["read_beats"] += beats_read
        return beats_read

    # Vector unit

    def _vector(self, i: Instruction) -> np.ndarray:
        m, v = self.memories, self.config.vector_lanes
        elements = i["count"] * v
        if i["bounded"]:
            elements = min(max(self.registers[i["register"]], 1), elements)
        n = -(-elements // v)
        self.counters["chunks"] += n
        total = self._sums(i, self._source(i, n))
        value = saturate(self._scale(i, total))
        if i["combine"]:
            combined = self._combine(Combine(i["combine"]))
            value = saturate(combined(value, m.vector[i["operand1"] : i["operand1"] + n]))
        value = self._finish(i, self._function(i, value))
        value[np.arange(n * v).reshape(n, v) >= elements] = 0
        if i["sums"] >= Sums.MAXIMUM:
            self._reduce(i, value.reshape(-1)[:elements])
        self._write(i, value)
        beats_written = 0
        if i["store"] != Store.NONE:
            stored = self._stored(i, total, value)
            beats_written = self._store(self.registers[i["register"]], stored)
        return np.array([n, beats_written])

    @staticmethod
    def _combine(kind: Combine) -> Callable[[Any, Any], Any]:
        return {
            Combine.ADD: lambda a, b: a + b,
            Combine.MULTIPLY: numerics.multiply_values,
            Combine.AMPLIFY: numerics.amplify,
        }[kind]

    def _finish(self, i: Instruction, value: np.ndarray) -> np.ndarray:
        if i["finish"] == Finish.NONE:
            return value.copy()
        n, vector = len(value), self.memories.vector
        operand = vector[i["operand2"] : i["operand2"] + n]
        if i["finish"] == Finish.ADD:
            return saturate(value + operand)
        other = vector[i["operand0"] : i["operand0"] + n]
        return saturate(numerics.interpolate(value, operand, other))

    def _reduce(self, i: Instruction, value: np.ndarray) -> None:
        scalar, gain = isa.reduction_target(i["sum_address"])
        if i["sums"] == Sums.MAXIMUM:
            result = numerics.maximum_scalar(int(value.max()), gain)
        elif i["sums"] == Sums.MASS:
            result = numerics.mass_scalar(int(columns(value).sum()), gain)
        else:
            sums = int(value.sum()), int((value * value).sum())
            result = numerics.moments_scalar(*sums, len(value), gain)
        for values, field in zip(self._rows(scalar).values(), result, strict=True):
            values[:] = field

    def _stored(self, i: Instruction, total: np.ndarray, value: np.ndarray) -> np.ndarray:
        if i["store"] == Store.SUMS:
            return total.astype("<i4")
        if i["store"] == Store.VALUES:
            return value.astype("<i2")
        items = np.zeros((value.size // self.config.group, ITEM_BYTES), np.int8)
        items[:, : self.config.group] = columns(value).reshape(-1, self.config.group)
        return items

    def _source(self, i: Instruction, n: int) -> np.ndarray:
        if i["source"] == Source.ZERO:
            return np.zeros((n, self.config.vector_lanes), np.int64)
        if i["source"] == Source.OPERAND:
            return self.memories.vector[i["operand0"] : i["operand0"] + n]
        total = self._drain(i["drain"], n)
        if i["source"] == Source.DRAIN_PLANES:
            total = total + 16 * self._drain(i["drain"] + i["plane_stride"], n)
        return total

    def _drain(self, first: int, count: int) -> np.ndarray:
        """Chunks of the slots summed over arrays, [count, V]; the slots become zero."""
        a, v = self.config.arrays, self.config.vector_lanes
        chunks = self.memories.slots.reshape(a, -1, v)[:, first : first + count]
        total = chunks.sum(0)
        chunks[:] = 0
        return total

    def _sums(self, i: Instruction, total: np.ndarray) -> np.ndarray:
        if i["sums"] == Sums.NONE or i["sums"] >= Sums.MAXIMUM:
            return wrap(total, SUM_BITS)
        stored = self.memories.sums[i["sum_address"] : i["sum_address"] + len(total)]
        if i["sums"] in (Sums.ADD, Sums.ACCUMULATE):
            total = total + stored
        total = wrap(total, SUM_BITS)
        if i["sums"] in (Sums.ACCUMULATE, Sums.WRITE):
            stored[:] = total
        return total

    def _scale(self, i: Instruction, total: np.ndarray) -> np.ndarray:
        if i["scale"] == Scale.NONE:
            return total
        if i["scale"] == Scale.SCALAR:
            scale, p = numerics.scale_by_scalar, self._rows(i["parameters"])
        else:
            where = slice(i["parameters"], i["parameters"] + len(total))
            scale = numerics.scale_sum
            p = {name: values[where] for name, values in self.memories.parameters.items()}
        # A shift of 0 stands in memory that was never loaded.
        shift = np.where(p["shift"] == 0, numerics.SHIFTS[0], p["shift"])
        return scale(total, p["multiplier"], shift, p["bias"])

    def _rows(self, scalar: int) -> dict[str, np.ndarray]:
        """The parameters that are a scalar, [V]: multiplier, shift and bias."""
        chunk = self.config.first_scalar + scalar
        return {name: values[chunk] for name, values in self.memories.parameters.items()}

    def _function(self, i: Instruction, value: np.ndarray) -> np.ndarray:
        if i["function"] == Function.RELU:
            return np.maximum(value, 0)
        if i["function"] >= Function.TABLE0:
            first = (i["function"] - Function.TABLE0) * numerics.TABLE_SEGMENTS
            where = first + numerics.table_segment(value)
            tables = self.memories.tables
            return saturate(
                numerics.table_value(value, tables["base"][where], tables["slope"][where])
            )
        return value

    def _write(self, i: Instruction, value: np.ndarray) -> None:
        m, c = self.memories, self.config
        if i["write_vector"]:
            m.vector[i["vector_address"] : i["vector_address"] + len(value)] = value
        if i["write_columns"]:
            groups = columns(value).reshape(-1, c.group)
            g = np.arange(len(groups))
            m.activations[g % c.arrays, i["column_address"] + g // c.arrays] = groups
