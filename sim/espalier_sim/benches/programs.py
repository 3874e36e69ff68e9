"""Random programs of LOAD, EXPAND, PRODUCT and VECTOR with stores, whose result the contract
defines.

Their waits are as weak as the instructions allow (`ordering`), so that units really run side by
side: what the hardware reorders shows as a difference from the reference machine, which runs in
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from espalier.spec import checks, expansion, isa, memory
from espalier.spec.config import BEAT_BYTES, SUM_BITS, Config
from espalier.spec.isa import (
    MOST_GAIN,
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
    reduction_address,
)
from espalier.spec.memory import ENTRY, Memory
from espalier.spec.numerics import COLUMN_MAX, COLUMN_MIN
from espalier.spec.stores import stored_bytes

from .expands import draw_expand
from .ordering import OUTPUTS, REDUCTIONS, Waits, product_ranges, vector_ranges

DATA_OFFSET = 0x2000
WINDOW_BYTES = 1 << 17
OUTPUT_OFFSET = WINDOW_BYTES // 2
OUTPUT, STORE_AT, LOAD_AT, BOUND, TOKENS = 1, 2, 3, 4, 5
"""Registers: next free output address, address of the store, address of the load, elements of a
bounded VECTOR, tokens of an EXPAND."""
SCALARS = 8
"""Scalars that a program uses; half of them it loads, and reduces into the others, before it reads
the first."""
LONGEST_COLUMN = 5
MOST_CHUNKS = 6


@dataclass
class Program:
    """Instructions, and the `image` of instructions and data from window offset 0."""

    instructions: list[Instruction] = field(default_factory=list)
    image: bytearray = field(default_factory=lambda: bytearray(WINDOW_BYTES))

    @property
    def length(self) -> int:
        return len(self.instructions)


class Generator:
    """Draws one program for a Config; `program()` is used once."""

    def __init__(self, config: Config, seed: int):
        self._config, self._random = config, Random(seed)
        self._program, self._waits = Program(), Waits()
        self._free = DATA_OFFSET
        self._words = min(config.weight_depth, 48)
        self._groups = min(config.column_depth, config.descriptor_depth, 8)
        self._chunks = min(config.vector_depth, config.sum_depth, config.parameter_depth, 16)
        self._instructions = (self._product, self._vector, self._reload, self._expand)

    def program(self, passes: int = 2, body: int = 10) -> Program:
        """Load every memory, then `passes` times `body` random instructions."""
        for register in (OUTPUT, STORE_AT, BOUND, TOKENS):  # all: an earlier program left others
            self._add(Opcode.SET, target=register, value=OUTPUT_OFFSET)
        for target, address, count in self._first_loads():
            self._load(target, address, count)
        self._clear_last()
        for scalar in range(SCALARS // 2):
            self._issue_vector({**self._vector_fields(), **self._reduction(scalar), "store": 0})
        self._add(Opcode.LOOP, count=passes, end=0)
        start = self._program.length - 1
        for _ in range(body):
            self._random.choices(self._instructions, [3, 4, 1, 2])[0]()
        self._vector()
        self._add(Opcode.END, **{f"wait_{unit}": 0 for unit in isa.UNITS})
        loop = Instruction(Opcode.LOOP, {"count": passes, "end": self._program.length - 1})
        self._program.instructions[start] = loop
        for scalar in range(SCALARS):
            self._issue_vector(self._show_scalar(scalar))
        # A START after a HALT keeps the slots: leave them empty, as every compiled program does.
        self._add(Opcode.VECTOR, source=Source.DRAIN, count=self._config.tile_chunks)
        self._add(Opcode.HALT)
        for pc, instruction in enumerate(self._program.instructions):
            checks.check(instruction, self._config)
            word = instruction.encode().to_bytes(BEAT_BYTES, "little")
            self._program.image[pc * BEAT_BYTES : (pc + 1) * BEAT_BYTES] = word
        assert self._program.length * BEAT_BYTES <= DATA_OFFSET and self._free <= OUTPUT_OFFSET
        return self._program

    def _add(self, opcode: Opcode, **fields: int) -> None:
        self._program.instructions.append(Instruction(opcode, self._complete(opcode, fields)))

    @staticmethod
    def _complete(opcode: Opcode, fields: dict[str, int]) -> dict[str, int]:
        declared = [f.name for f in isa.LAYOUTS[opcode].fields[1:]]
        waits = {f"wait_{unit}": isa.NO_WAIT for unit in isa.waits_for(opcode)}
        return {**dict.fromkeys(declared, 0), **waits, **fields}

    # Data

    def _first_loads(self) -> list[tuple[Memory, int, int]]:
        c = self._config
        per = {m: memory.items_per_address(c, m) for m in Memory if m > Memory.WEIGHTS}
        return [
            (Memory.TABLES, 0, memory.depth(c, Memory.TABLES)),
            (Memory.PARAMETERS, 0, self._chunks * per[Memory.PARAMETERS]),
            (Memory.PARAMETERS, c.first_scalar, SCALARS * per[Memory.PARAMETERS]),
            (Memory.WEIGHTS, 0, self._words),
            (Memory.DESCRIPTORS, 0, self._groups),
            (Memory.ACTIVATIONS, 0, self._groups * c.arrays),
            (Memory.VECTOR, 0, self._chunks * per[Memory.VECTOR]),
            (Memory.SUMS, 0, self._chunks * per[Memory.SUMS]),
        ]

    def _data(self, target: Memory, count: int) -> int:
        """Window offset of new random data for a LOAD."""
        size = memory.beats(self._config, target, count) * BEAT_BYTES
        offset, self._free = self._free, self._free + size
        raw = b"".join(self._items(target, size))
        self._program.image[offset : offset + size] = raw
        return offset

    def _items(self, target: Memory, size: int) -> Iterator[bytes]:
        """`size` bytes whose fields are legal."""
        draw = self._random
        if target is Memory.WEIGHTS:
            entries = self._config.quads_per_beat * 4
            for _ in range(size // BEAT_BYTES):
                word = 0
                for i in range(entries):
                    entry = {"digit": draw.randint(-8, 7), "slot": draw.randrange(32)}
                    word |= ENTRY.pack(entry) << (i * ENTRY.width)
                yield word.to_bytes(BEAT_BYTES, "little")
        elif target is Memory.DESCRIPTORS:
            for _ in range(size // 8):
                yield self._descriptor().to_bytes(8, "little")
        elif target is Memory.ACTIVATIONS:
            for _ in range(size):
                value = draw.choice(
                    [0, 0, COLUMN_MIN, COLUMN_MAX, draw.randint(COLUMN_MIN, COLUMN_MAX)]
                )
                yield value.to_bytes(1, "little", signed=True)
        elif target is Memory.SUMS:
            for _ in range(size // 4):
                value = draw.randrange(
                    -(1 << (SUM_BITS - 1)), 1 << (SUM_BITS - 1)
                ) >> draw.randrange(20)
                yield value.to_bytes(4, "little", signed=True)
        else:
            yield draw.randbytes(size)

    def _descriptor(self) -> int:
        counts = [self._random.randint(0, LONGEST_COLUMN) for _ in range(self._config.group)]
        base = self._random.randint(0, self._words - sum(counts))
        fields = {f"count{i}": count for i, count in enumerate(counts)}
        return memory.descriptor(self._config).pack({"base": base, **fields})

    # Instructions

    def _load(self, target: Memory, address: int, count: int) -> None:
        offset = self._data(target, count)
        last = address + count
        if target > Memory.DESCRIPTORS:
            last = address + -(-count // memory.items_per_address(self._config, target))
        writes = [(target.name, address, last)]
        if target is Memory.PARAMETERS and address >= self._config.first_scalar:
            writes = [("SCALARS", 0, SCALARS)]
        self._add(Opcode.SET, target=LOAD_AT, value=offset - BEAT_BYTES)
        self._add(
            Opcode.LOAD,
            memory=target,
            address=address,
            count=count,
            register=LOAD_AT,
            offset=BEAT_BYTES,
            **self._waits.before([], writes),
        )
        self._waits.issue("weights" if target is Memory.WEIGHTS else "load", [], writes)

    def _reload(self) -> None:
        """New values for a part of one memory."""
        c, draw = self._config, self._random
        target = draw.choice([Memory.ACTIVATIONS, Memory.VECTOR, Memory.SUMS, Memory.DESCRIPTORS])
        groups = target in (Memory.ACTIVATIONS, Memory.DESCRIPTORS)
        size = self._groups if groups else self._chunks
        first = draw.randrange(size)
        per_address = 1 if target is Memory.DESCRIPTORS else memory.items_per_address(c, target)
        self._load(target, first, draw.randint(1, min(size - first, 3) * per_address))

    def _expand(self) -> None:
        """Weights of random rows, or of what was stored last."""
        draw = self._random
        f = draw_expand(self._config, draw, self._words)
        f["tokens"] = TOKENS
        value = draw.choice([0, -1, f["most"] + 1, draw.randint(1, f["most"])])
        self._add(Opcode.SET, target=TOKENS, value=value)
        first = f["address"]
        writes = [("WEIGHTS", first, first + expansion.words(f, self._config, f["most"]))]
        if draw.random() < 0.5:
            f.update(register=STORE_AT, gap=0)
            writes.append(OUTPUTS)  # to which stores are readers: they need not wait for each other
        else:
            size = expansion.extent(f, self._config, f["most"])
            offset, self._free = self._free, self._free + size
            self._program.image[offset : self._free] = draw.randbytes(size)
            self._add(Opcode.SET, target=LOAD_AT, value=offset - BEAT_BYTES)
            f.update(register=LOAD_AT, offset=BEAT_BYTES)
        self._add(Opcode.EXPAND, **f, **self._waits.before([], writes))
        self._waits.issue("weights", [], writes)

    def _clear_last(self) -> None:
        self._add(Opcode.PRODUCT, mode=Mode.CLEAR, groups=self._groups)
        self._waits.issue("engine", [], [("last", 0, self._groups)])

    def _product(self) -> None:
        draw = self._random
        n = draw.randint(1, self._groups)
        fields = {
            name: draw.randint(0, self._groups - n)
            for name in ("activations", "last", "descriptors")
        }
        mode = draw.choices(list(Mode), [3, 2, 4, 1])[0]
        reads, last = product_ranges(self._config, {**fields, "mode": mode, "groups": n})
        self._add(
            Opcode.PRODUCT,
            mode=mode,
            threshold=draw.choice([0, 0, 3, 40]),
            groups=n,
            **fields,
            **self._waits.before(reads, last),
        )
        self._waits.issue("engine", reads, last)

    def _vector(self) -> None:
        f = self._vector_fields()
        if self._random.random() < 0.3:
            f.update(self._reduction(self._random.randrange(SCALARS)))
        if self._random.random() < 0.3:
            f["scale"], f["parameters"] = Scale.SCALAR, self._random.randrange(SCALARS)
        if self._random.random() < 0.3:
            f.update(store=Store.NONE, register=BOUND, bounded=1)
        self._issue_vector(f)

    def _reduction(self, scalar: int) -> dict[str, int]:
        kind = self._random.choice(REDUCTIONS)
        gain = self._random.randint(0, MOST_GAIN[kind])
        return {"sums": kind, "sum_address": reduction_address(scalar, gain)}

    def _show_scalar(self, scalar: int) -> dict[str, int]:
        """Stored sums as the scalar scales them."""
        fields = self._vector_fields()
        shown = {"source": Source.ZERO, "sums": Sums.ADD, "store": Store.VALUES}
        shown |= {"scale": Scale.SCALAR, "parameters": scalar}
        address = self._random.randint(0, self._chunks - fields["count"])
        same = {"combine": 0, "function": 0, "finish": 0, "sum_address": address}
        return {**fields, **shown, **same}

    def _issue_vector(self, f: dict[str, int]) -> None:
        reads, writes = vector_ranges(self._config, f)
        if f["store"]:
            reads.append(OUTPUTS)
            size = stored_bytes(self._config, f["store"], f["count"])
            self._add(Opcode.SET, target=STORE_AT, use_source=1, source=OUTPUT)
            self._add(Opcode.SET, target=OUTPUT, use_source=1, source=OUTPUT, value=size)
            f["register"] = STORE_AT
        if f.get("bounded"):
            value = self._random.choice([0, 1, self._random.getrandbits(6), -1])
            self._add(Opcode.SET, target=BOUND, value=value)
        waits = self._waits.before(reads, writes)
        if "wait_weights" in waits:  # no field of a VECTOR
            self._add(Opcode.SET, target=BOUND, use_source=1, source=BOUND, **waits)
            del waits["wait_weights"]
        self._add(Opcode.VECTOR, **f, **waits)
        # the unit waits for scalars by itself
        self._waits.issue("vector", reads, [r for r in writes if r[0] != "SCALARS"])
        if f["store"]:
            self._waits.issue("store", [OUTPUTS], [])

    def _vector_fields(self) -> dict[str, int]:
        c, draw = self._config, self._random
        n = draw.randint(1, min(MOST_CHUNKS, self._chunks // 2))
        stride = draw.randint(n, c.tile_chunks // 4)
        return {
            "count": n,
            "source": draw.choices(list(Source), [1, 2, 2, 2])[0],
            "drain": draw.randint(0, c.tile_chunks - n - stride),
            "plane_stride": stride,
            "sums": draw.choice([s for s in Sums if s < Sums.MAXIMUM]),
            "sum_address": draw.randint(0, self._chunks - n),
            "scale": draw.choices([Scale.NONE, Scale.ROWS], [1, 3])[0],
            "parameters": draw.randint(0, self._chunks - n),
            "combine": draw.choice(list(Combine)),
            "function": draw.choice([f for f in Function if f < Function.TABLE0 + c.tables]),
            "finish": draw.choice(list(Finish)),
            **self._places(n),
            "write_vector": draw.randint(0, 1),
            "write_columns": draw.randint(0, 1),
            "column_address": draw.randint(0, self._groups - -(-n * c.chunk_groups // c.arrays)),
            "store": draw.choices(list(Store), [1, 2, 1, 2])[0],
        }

    def _places(self, n: int) -> dict[str, int]:
        """Operands, and a result that overlaps none of them in part: all are read before."""
        draw, half = self._random, self._chunks // 2
        names = ("operand0", "operand1", "operand2")
        if draw.random() < 0.3:
            return dict.fromkeys((*names, "vector_address"), draw.randint(0, half - n))
        operands = {name: draw.randint(0, half - n) for name in names}
        return {**operands, "vector_address": half + draw.randint(0, half - n)}


def draw(config: Config, seed: int) -> Program:
    """The random program of a seed."""
    return Generator(config, seed).program()
