"""Two small programs that `espalier doctor` runs: a copy through the accelerator, and a network
whose answer is known."""

from __future__ import annotations

import numpy as np

from ..compiler.backend import build
from ..compiler.ir import Graph, Gru, Input, Output, Value, View
from ..parameters import GruCellParameters, Matrix, Rows
from ..program import Program
from ..spec import numerics
from ..spec.config import ITEM_BYTES, Config
from ..spec.isa import Instruction, Opcode, Source, Store
from ..spec.memory import Memory

CHUNKS = 8
"""Chunks that the copy moves at once."""
FROM, TO = 1, 2
"""Registers with the copy's addresses."""
INPUTS, UNITS, STEPS = 5, 8, 3


def copy_program(config: Config) -> Program:
    """Copies `copy_bytes` from the window offset in register FROM to that in TO, through vector
    memory: entry `run`."""
    waits = {"wait_load": 0, "wait_vector": 0, "wait_store": 0}
    halt = Instruction(Opcode.HALT, waits)
    items = copy_bytes(config) // ITEM_BYTES
    load = {"memory": Memory.VECTOR, "address": 0, "count": items, "register": FROM}
    store = {"count": CHUNKS, "source": Source.OPERAND, "operand0": 0, "store": Store.VALUES}
    code = [
        halt,
        Instruction(Opcode.LOAD, {**waits, **load}),
        Instruction(Opcode.VECTOR, {**waits, **store, "register": TO}),
        halt,
    ]
    image = b"".join(instruction.encode().to_bytes(16, "little") for instruction in code)
    return Program(
        config=config,
        image=np.frombuffer(image, np.uint8),
        instructions=len(code),
        entries={"setup": 0, "reset": 0, "run": 1},
        inputs=(),
        outputs=(),
    )


def copy_bytes(config: Config) -> int:
    return CHUNKS * config.vector_lanes * 2


def network(config: Config) -> Program:
    """A GRU whose integers follow from their indices, the same on every configuration."""
    x = Value("x", INPUTS, numerics.GATE_SCALE, True)
    states = Value("states", UNITS, numerics.GATE_SCALE, True)
    last = Value("last", UNITS, numerics.GATE_SCALE, False)
    cell = GruCellParameters(
        weight_ih=_matrix(3 * UNITS, INPUTS, 5),
        weight_hh=_matrix(3 * UNITS, UNITS, 11),
        gates=_rows(2 * UNITS),
        new_input=_rows(UNITS),
        new_hidden=_rows(UNITS),
        input_scale=256 * numerics.GATE_SCALE,
    )
    graph = Graph(
        [
            Input(x, True, (-1, -1, INPUTS), 0, 1),
            Gru(View.of(x), (None,), ((cell,),), states, (last,)),
        ],
        [Output("states", View.of(states), (-1, -1, UNITS), 0, 1)],
    )
    return build(graph, config, {})


def network_input() -> np.ndarray:
    """Column inputs [1, STEPS, INPUTS] that jump by more than 127, stay, and are 0."""
    return (np.arange(STEPS * INPUTS) * 89 % 255 - 127).reshape(1, STEPS, INPUTS)


EXPECTED = (
    (-8483, -7, 21882, -6394, -1, 20896, -4369, 4),
    (27043, -27894, 20563, 32251, -23007, 20882, 8497, -8243),
    (19651, 30004, -23227, 31332, -12474, 17963, 6994, 30707),
)
"""Outputs of `network` for `network_input`, [STEPS, UNITS], by the reference machine; a test keeps
them."""


def _matrix(rows: int, columns: int, factor: int) -> Matrix:
    weight = (np.arange(rows * columns) * factor % 15 - 7).reshape(rows, columns)
    return Matrix(weight=weight.astype(np.int16), bit_width=4)


def _rows(count: int) -> Rows:
    multiplier, shift = numerics.row_scale(12.0)
    return Rows(
        multiplier=np.full(count, multiplier, np.int64),
        shift=np.full(count, shift, np.int64),
        bias=np.arange(count) * 3000 - 4000,
    )
