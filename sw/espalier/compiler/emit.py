"""Writes instructions: fields by name, what each one touches, loops and entries; the waits follow
from that.

Addresses into the image's data are relative until the program's length is known, `encode` then
moves them behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import CapacityError
from ..spec import isa
from ..spec.config import BEAT_BYTES, Config
from ..spec.interface import STEPS_REGISTER
from ..spec.isa import (
    INSTRUCTION_BYTES,
    Finish,
    Instruction,
    Mode,
    Opcode,
    Scale,
    Source,
    Store,
    Sums,
)
from ..spec.memory import Memory, beats, items_per_address
from ..spec.stores import stored_bytes
from .hazards import SCALARS, Access, Range, Step, Waits

ZERO_REGISTER = isa.REGISTERS - 1
"""Holds 0: the base of addresses into the image."""
ADDRESS_BITS = 32
"""Registers, and sums with them, wrap at so many bits."""
MOST_CHUNKS = 511
"""Chunks of one VECTOR."""


@dataclass
class Node:
    """One instruction before its waits are known; `in_image` says that the offset counts from the
    data's start."""

    opcode: Opcode
    fields: dict[str, int]
    accesses: tuple[Access, ...] = ()
    in_image: bool = False


@dataclass
class Assembly:
    """A program being written."""

    config: Config
    nodes: list[Node] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    _open: list[int] = field(default_factory=list)

    def entry(self, name: str) -> None:
        """What follows runs from the entry `name`."""
        self.entries[name] = len(self.nodes)
        self.set(ZERO_REGISTER, 0)

    def halt(self) -> None:
        self._append(Opcode.HALT, {})

    def set(self, target: int, value: int, source: int | None = None) -> None:
        """target = value, or source + value."""
        use = {} if source is None else {"use_source": 1, "source": source}
        self._append(Opcode.SET, {"target": target, "value": value, **use})

    @contextmanager
    def loop(self, *, register: int | None = None, count: int = 0) -> Iterator[None]:
        """What is written inside runs `count` times, or as often as the register says."""
        how = {"count": count} if register is None else {"use_register": 1, "register": register}
        start = len(self.nodes)
        self._append(Opcode.LOOP, how)
        yield
        self.nodes[start].fields["end"] = len(self.nodes)
        self._append(Opcode.END, {})

    def load_image(
        self,
        memory: Memory,
        address: int,
        count: int,
        offset: int,
        *,
        register: int = ZERO_REGISTER,
        increment: int = 0,
    ) -> None:
        """LOAD from the image's data at `offset` (plus a register's value)."""
        self._load(memory, address, count, register, offset, increment, (), in_image=True)

    def load_buffer(
        self,
        memory: Memory,
        address: int,
        count: int,
        register: int,
        *,
        offset: int = 0,
        increment: int = 0,
        section: str = "",
    ) -> None:
        """LOAD from a buffer, also from before the register's address; `section` names what of it
        the program itself writes."""
        reads = ((section, 0, 1),) if section else ()
        self._load(memory, address, count, register, offset, increment, reads, in_image=False)

    def _load(
        self,
        memory: Memory,
        address: int,
        count: int,
        register: int,
        offset: int,
        increment: int,
        reads: tuple[Range, ...],
        in_image: bool,
    ) -> None:
        size = count
        if memory not in (Memory.WEIGHTS, Memory.DESCRIPTORS):
            size = -(-count // items_per_address(self.config, memory))
        unit = "weights" if memory is Memory.WEIGHTS else "load"
        access = Access(unit, reads, ((memory.name.lower(), address, address + size),))
        fields = {
            "memory": memory,
            "address": address,
            "count": count,
            "register": register,
            "offset": offset % (1 << ADDRESS_BITS),
            "increment": increment,
        }
        self._append(Opcode.LOAD, fields, (access,), in_image)

    def expand(
        self, words: tuple[int, int], *, register: int, tokens: int, section: str, **fields: int
    ) -> None:
        """EXPAND with the instruction's own field names; `words` are the (first, end) that it may
        write, `section` names what it reads."""
        access = Access("weights", ((section, 0, 1),), (("weights", *words),))
        fields = {**fields, "register": register, "tokens": tokens}
        self._append(Opcode.EXPAND, fields, (access,))

    def product(
        self,
        *,
        mode: Mode,
        groups: int,
        activations: int = 0,
        descriptors: int = 0,
        last: int = 0,
        threshold: int = 0,
        weights: tuple[int, int] = (0, 0),
        slots: tuple[int, int] = (0, 0),
    ) -> None:
        """PRODUCT; `weights` and `slots` are the (first, end) that its descriptors lead to."""
        chunks = self.config.slot_chunks
        access = Access("engine")
        if mode is not Mode.CLEAR:
            access = Access(
                "engine",
                (
                    ("activations", activations, activations + groups),
                    ("descriptors", descriptors, descriptors + groups),
                    ("weights", *weights),
                ),
                (("slots", slots[0] * chunks, slots[1] * chunks),),
            )
        fields = {
            "mode": mode,
            "threshold": threshold,
            "groups": groups,
            "activations": activations,
            "last": last,
            "descriptors": descriptors,
        }
        self._append(Opcode.PRODUCT, fields, (access,))

    def vector(self, *, count: int, section: str = "", **fields: Any) -> None:
        """VECTOR with the instruction's own field names; `section` names the scratch that it
        writes."""
        if count > MOST_CHUNKS:
            raise CapacityError(
                f"a vector operation takes at most {MOST_CHUNKS} chunks, not {count}; "
                "make the layer smaller"
            )
        fields = {"count": count, **fields}
        accesses = [Access("vector", *self._vector_ranges(fields))]
        if fields.get("store", Store.NONE) != Store.NONE:
            accesses.append(Access("store", (), ((section, 0, 1),) if section else ()))
        self._append(Opcode.VECTOR, fields, tuple(accesses))

    def _vector_ranges(self, f: dict[str, int]) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
        n, reads, writes = f["count"], [], []

        def span(space: str, name: str, size: int = n) -> Range:
            return space, f.get(name, 0), f.get(name, 0) + size

        if f["source"] in (Source.DRAIN, Source.DRAIN_PLANES):
            for plane in range(1 + (f["source"] == Source.DRAIN_PLANES)):
                first = f["drain"] + plane * f.get("plane_stride", 0)
                writes.append(("slots", first, first + n))
        if f["source"] == Source.OPERAND or f.get("finish") == Finish.INTERPOLATE:
            reads.append(span("vector", "operand0"))
        if f.get("combine"):
            reads.append(span("vector", "operand1"))
        if f.get("finish"):
            reads.append(span("vector", "operand2"))
        if f.get("scale") == Scale.ROWS:
            reads.append(span("parameters", "parameters"))
        if f.get("scale") == Scale.SCALAR:
            reads.append(span(SCALARS, "parameters", 1))
        if f.get("sums", Sums.NONE) >= Sums.MAXIMUM:
            scalar, _ = isa.reduction_target(f["sum_address"])
            writes.append((SCALARS, scalar, scalar + 1))
        if f.get("function", 0) >= isa.Function.TABLE0:
            reads.append(("tables", 0, 1 << 16))
        if f.get("sums") in (Sums.ADD, Sums.ACCUMULATE):
            reads.append(span("sums", "sum_address"))
        if f.get("sums") in (Sums.ACCUMULATE, Sums.WRITE):
            writes.append(span("sums", "sum_address"))
        if f.get("write_vector"):
            writes.append(span("vector", "vector_address"))
        if f.get("write_columns"):
            words = -(-n * self.config.chunk_groups // self.config.arrays)
            writes.append(span("activations", "column_address", words))
        return tuple(reads), tuple(writes)

    def _append(
        self,
        opcode: Opcode,
        fields: dict[str, int],
        accesses: tuple[Access, ...] = (),
        in_image: bool = False,
    ) -> None:
        self.nodes.append(Node(opcode, fields, accesses, in_image))

    def encode(self) -> bytes:
        """The instructions as image bytes.

        Raises CapacityError when they are more than the program memory holds.
        """
        length, depth = len(self.nodes), self.config.program_depth
        if length > depth:
            raise CapacityError(
                f"a program must have at most {depth} instructions on {self.config.name}, this one "
                f"has {length}; use smaller layers, fewer tiles or a larger configuration"
            )
        steps = [
            Step(n.opcode, n.accesses, n.fields.get("end", 0), bool(n.fields.get("use_register")))
            for n in self.nodes
        ]
        waits = Waits(steps, list(self.entries.values())).waits
        return b"".join(
            self._word(node, wait).to_bytes(INSTRUCTION_BYTES, "little")
            for node, wait in zip(self.nodes, waits, strict=True)
        )

    def _word(self, node: Node, waits: dict[str, int]) -> int:
        fields = {**node.fields, **{f"wait_{unit}": n for unit, n in waits.items()}}
        if node.in_image:
            fields["offset"] += len(self.nodes) * INSTRUCTION_BYTES
        return Instruction(node.opcode, fields).encode()

    def traffic(self, entry: str) -> dict[str, int]:
        """DDR bytes of a start with T steps, fixed + per_step·T; the program itself is not part of
        it.

        A loop counts by R0 = T, or by another register, which then holds T - 1.
        """
        fixed, per_step, address = 0, 0, self.entries[entry]
        factors: list[tuple[int, int]] = [(1, 0)]
        while (node := self.nodes[address]).opcode is not Opcode.HALT:
            once, repeated = factors[-1]
            if node.opcode is Opcode.LOOP and node.fields.get("use_register"):
                less = node.fields.get("register", 0) != STEPS_REGISTER
                factors.append((-once if less else 0, once))
            elif node.opcode is Opcode.LOOP:
                factors.append((once * node.fields["count"], repeated * node.fields["count"]))
            elif node.opcode is Opcode.END:
                factors.pop()
            fixed += once * self._bytes(node)
            per_step += repeated * self._bytes(node)
            address += 1
        return {"fixed": fixed, "per_step": per_step}

    def _bytes(self, node: Node) -> int:
        f = node.fields
        if node.opcode is Opcode.LOAD:
            return beats(self.config, Memory(f["memory"]), f["count"]) * BEAT_BYTES
        if node.opcode is Opcode.VECTOR:
            return stored_bytes(self.config, f.get("store", Store.NONE), f["count"])
        return 0
