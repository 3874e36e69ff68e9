"""The instruction set: 128-bit instructions, their fields, encoder, decoder and disassembler.

The sequencer issues instructions in order to five units: `load` (DDR to chip), `weights` (DDR to
the weight memory: LOADs into it and EXPANDs), `engine` (products), `vector` and `store` (chip to
DDR; a VECTOR with a store counts on both). Units run concurrently;
the result is that of executing one instruction after the other **provided the waits say so**:
before an instruction issues, every unit with a wait of n < 3 has at most n instructions outstanding
(issued, not completed). A VECTOR cannot wait for `weights`: its 128 bits are full. The reference
machine executes strictly in order, so a missing wait shows
as a difference between it and the RTL. Scalars need no waits: a VECTOR is complete before the
scalar that it reduces to is written, and one that reads a scalar waits inside the unit until all
earlier reductions into the same half of the scalars, 0..15 or 16..31, are finished. Whoever else
touches a scalar's chunk (a LOAD, row parameters) after a reduction must come after the completion
of a VECTOR that reads a scalar of that half.

Sixteen 32-bit registers are written by the host before a start; `SET` computes with them (modulo
2^32), loops count by them, DDR addresses come from them. DDR addresses are byte offsets into the
window that the host opened, multiples of 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from .config import SCALARS
from .fields import Field, Layout
from .memory import Memory

VERSION = 3
"""Version of instructions, memories and registers together; a program names it."""
INSTRUCTION_BITS = 128
INSTRUCTION_BYTES = INSTRUCTION_BITS // 8
REGISTERS = 16
LOOP_DEPTH = 4
"""Nested hardware loops."""
MOST_GAIN = {4: 3, 5: 15, 6: 15}
"""Largest gain by reduction (Sums): beyond it a scalar would not hold the result."""
MOST_ROW_GROUPS = 64
"""Groups of one token's row that an EXPAND takes: what the loader's transposer holds."""
NO_WAIT = 3
UNITS = ("load", "engine", "vector", "store", "weights")
QUEUE_DEPTH = 2
"""Instructions that a unit can hold besides the one it runs."""


class Opcode(IntEnum):
    """0 is illegal, so that cleared memory faults."""

    HALT = 1
    SET = 2
    LOOP = 3
    END = 4
    LOAD = 5
    PRODUCT = 6
    VECTOR = 7
    EXPAND = 8


class Mode(IntEnum):
    """How a PRODUCT takes its columns. x is the activation, s the last-sent value."""

    PLAIN = 0
    """Visit x != 0 with x; s is neither read nor written."""
    DELTA = 1
    """Visit |x - s| > threshold with x - s (twice when it exceeds 127: ±127 first); s stays."""
    COMMIT = 2
    """DELTA, and s becomes x in every column that was visited."""
    CLEAR = 3
    """No product: s becomes 0."""


class Source(IntEnum):
    """What a VECTOR works on."""

    ZERO = 0
    DRAIN = 1
    """Slots summed over arrays (read and cleared)."""
    OPERAND = 2
    """Operand 0 from vector memory."""
    DRAIN_PLANES = 3
    """Slots of two digit planes summed over arrays (read and cleared): low + 16·high."""


class Sums(IntEnum):
    """The sum memory's part in a VECTOR: t is the source, m the stored sum; or, from MAXIMUM on, a
    reduction of all its results into a scalar (`sum_address` has its number and the gain,
    `reduction_address`)."""

    NONE = 0
    ADD = 1
    """t + m; m stays."""
    ACCUMULATE = 2
    """t + m, stored."""
    WRITE = 3
    """t, stored."""
    MAXIMUM = 4
    """The scalar takes the largest result off and multiplies by 2^gain (maximum_scalar)."""
    MASS = 5
    """The scalar divides by the sum of the results as column inputs (mass_scalar)."""
    MOMENTS = 6
    """The scalar takes the results' mean off and divides by their deviation (moments_scalar)."""


class Scale(IntEnum):
    """With what a sum is requantized."""

    NONE = 0
    """Saturated to 16 bits."""
    ROWS = 1
    """Row parameters."""
    SCALAR = 2
    """One scalar for all elements; `parameters` is its number. Scalar s is chunk `parameter_depth`
    - 32 + s of the parameter memory, the same for all chunks of the VECTOR; its bias counts in
    units of the result instead of sixteenths. A reduction writes all lanes of that chunk; whoever
    loads it writes a scalar. The VECTOR waits inside the unit until all earlier reductions
    into scalars of the same half, 0..15 or 16..31, are finished; waits need not provide for it."""


class Finish(IntEnum):
    """What is done to the function's value v last."""

    NONE = 0
    INTERPOLATE = 1
    """v + operand2·(operand0 - v) in Q0.15."""
    ADD = 2
    """v + operand2."""


class Combine(IntEnum):
    """The scaled value v with operand 1."""

    NONE = 0
    ADD = 1
    MULTIPLY = 2
    """v·operand1 in Q0.15."""
    AMPLIFY = 3
    """v·operand1 in Q3.12."""


class Function(IntEnum):
    """What is applied to the combined value; tables are data in the table memory."""

    NONE = 0
    RELU = 1
    TABLE0 = 4
    TABLE1 = 5
    TABLE2 = 6
    TABLE3 = 7


class Store(IntEnum):
    """What a VECTOR sends to DDR."""

    NONE = 0
    VALUES = 1
    """The result, 16 bits an element, chunk after chunk; the last beat is padded with zeros."""
    SUMS = 2
    """The sum before scaling, 32 bits an element."""
    COLUMNS = 3
    """The results as column inputs, as a LOAD of activations takes them: 8 bytes a group; the last
    beat is padded with zeros."""


class Expand(IntEnum):
    """How an EXPAND makes weights of rows of column inputs, one row a token."""

    COLUMNS = 0
    """A token becomes a column for each head, its elements the rows (attention's values)."""
    ROWS = 1
    """A token becomes a row for each head, its elements the columns (attention's keys)."""


_WAITS = tuple(
    Field(f"wait_{unit}", 2, f"most outstanding {unit} instructions at issue; 3 = any")
    for unit in UNITS
)
_OPCODE = Field("opcode", 4, "operation", choices=Opcode)


def waits_for(opcode: Opcode) -> tuple[str, ...]:
    """Units that an instruction can wait for: all, but a VECTOR not for `weights`."""
    return UNITS[:-1] if opcode is Opcode.VECTOR else UNITS


def _layout(name: str, *own: Field) -> Layout:
    waits = _WAITS[: len(waits_for(Opcode[name]))]
    return Layout(name, INSTRUCTION_BITS, (_OPCODE, *waits, *own))


LAYOUTS: dict[Opcode, Layout] = {
    Opcode.HALT: _layout("HALT"),
    Opcode.SET: _layout(
        "SET",
        Field("target", 4, "register written"),
        Field("use_source", 1, "1: target = source + value; 0: target = value"),
        Field("source", 4, "register read"),
        Field("value", 32, "immediate", signed=True),
    ),
    Opcode.LOOP: _layout(
        "LOOP",
        Field("use_register", 1, "1: count is a register's value; 0: the immediate"),
        Field("register", 4, "register that holds the count"),
        Field("count", 16, "immediate count"),
        Field("end", 16, "address of the matching END; a count of 0 continues after it"),
    ),
    Opcode.END: _layout("END"),
    Opcode.LOAD: _layout(
        "LOAD",
        Field("memory", 3, "target memory", choices=Memory),
        Field("address", 16, "first address in the memory"),
        Field("count", 16, "size, in the memory's own unit (spec.memory)"),
        Field("register", 4, "register with the DDR address"),
        Field("offset", 32, "added to the DDR address"),
        Field("increment", 28, "added to the register afterwards", signed=True),
    ),
    Opcode.PRODUCT: _layout(
        "PRODUCT",
        Field("mode", 2, "how columns are taken", choices=Mode),
        Field("threshold", 8, "a delta is sent when its magnitude is above"),
        Field("groups", 11, "column groups in each array"),
        Field("activations", 10, "first group in activation memory"),
        Field("last", 10, "first group in last-sent memory"),
        Field("descriptors", 10, "first group in descriptor memory"),
    ),
    Opcode.VECTOR: _layout(
        "VECTOR",
        Field("count", 9, "chunks"),
        Field("source", 2, "what to work on", choices=Source),
        Field("drain", 7, "first chunk in the slots (low plane)"),
        Field("plane_stride", 7, "chunks from the low plane to the high plane"),
        Field("sums", 3, "use of the sum memory, or reduction", choices=Sums),
        Field(
            "sum_address", 10, "first chunk in sum memory; or scalar (bits 4:0) and gain (bits 9:5)"
        ),
        Field("scale", 2, "requantization", choices=Scale),
        Field("parameters", 10, "first chunk in parameter memory, or scalar"),
        Field("combine", 2, "operation with operand 1", choices=Combine),
        Field("function", 3, "function of the combined value", choices=Function),
        Field("finish", 2, "last operation", choices=Finish),
        Field("operand0", 10, "first chunk in vector memory"),
        Field("operand1", 10, "first chunk in vector memory"),
        Field("operand2", 10, "first chunk in vector memory"),
        Field("write_vector", 1, "1: the result goes to vector memory"),
        Field("vector_address", 10, "first chunk written"),
        Field("write_columns", 1, "1: the result's upper bytes go to activation memory"),
        Field("column_address", 10, "first group written: group 0 goes to array 0 at this address"),
        Field("store", 2, "what goes to DDR, at the register's address", choices=Store),
        Field("register", 4, "register with the DDR address, or with the number of elements"),
        Field("bounded", 1, "1: the register holds the number of elements that count"),
    ),
    Opcode.EXPAND: _layout(
        "EXPAND",
        Field("kind", 3, "what a token becomes", choices=Expand),
        Field("address", 16, "first word in every array's weight memory"),
        Field("most", 12, "most tokens that count; their room is taken"),
        Field("tokens", 4, "register with the number of tokens"),
        Field("register", 4, "register with the DDR address"),
        Field("offset", 32, "added to the DDR address"),
        Field("heads", 5, "heads in a token's row"),
        Field("groups", 5, "groups of a head"),
        Field("slot", 5, "first slot of head 0's low digit plane"),
        Field("slots", 5, "slots of a digit plane of a head"),
        Field("gap", 12, "DDR beats between a token's row and the next one's"),
    ),
}


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction; `fields` has the operation's own fields and `wait_<unit>` for each
    unit that it can wait for."""

    opcode: Opcode
    fields: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    def encode(self) -> int:
        """The 128-bit word. Raises ValueError when a value does not fit its field."""
        waits = {f"wait_{unit}": NO_WAIT for unit in waits_for(self.opcode)}
        return LAYOUTS[self.opcode].pack({**waits, **self.fields, "opcode": self.opcode})


def decode(word: int) -> Instruction:
    """The instruction of a 128-bit word. Raises ValueError for an unknown opcode, value or a set
    unused bit."""
    opcode = word & ((1 << _OPCODE.width) - 1)
    _OPCODE.check(opcode)
    values = LAYOUTS[Opcode(opcode)].unpack(word)
    del values["opcode"]
    return Instruction(Opcode(opcode), values)


def reduction_address(scalar: int, gain: int) -> int:
    """`sum_address` of a VECTOR that reduces its results into a scalar."""
    return scalar | gain << (SCALARS - 1).bit_length()


def reduction_target(address: int) -> tuple[int, int]:
    """(scalar, gain) of a `reduction_address`."""
    return address % SCALARS, address // SCALARS


def disassemble(instruction: Instruction) -> str:
    """One line of text: opcode, fields that are not zero, waits as `[engine<=0]`."""
    layout = LAYOUTS[instruction.opcode]
    waits = [
        f"{unit}<={w}"
        for unit in UNITS
        if (w := instruction.fields.get(f"wait_{unit}", NO_WAIT)) != NO_WAIT
    ]
    parts = [f"[{' '.join(waits)}]"] if waits else []
    for declared in layout.fields[1 + len(waits_for(instruction.opcode)) :]:
        value = instruction.fields.get(declared.name, 0)
        if declared.choices is not None:
            if value or declared.name in ("memory", "mode", "source"):
                parts.append(f"{declared.name}={declared.choices(value).name.lower()}")
        elif value:
            parts.append(f"{declared.name}={value}")
    return " ".join([instruction.opcode.name, *parts])
