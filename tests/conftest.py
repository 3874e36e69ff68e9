"""A program small enough to check by hand: h += x at every step, h0 optional, h out at every step
and at the end."""

import os

import numpy as np
import pytest
from hypothesis import settings

from espalier.program import Program
from espalier.spec.config import TINY
from espalier.spec.interface import Kind, Port
from espalier.spec.isa import Combine, Instruction, Opcode, Source, Store
from espalier.spec.memory import Memory

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch: small matrices, several tests at once
settings.register_profile("house", deadline=None)  # no test is about time
settings.load_profile("house")

FEATURES, CHUNKS = 6, 2
SCALE = 0.25
X, H = 0, CHUNKS
IDLE = {"wait_load": 0, "wait_vector": 0, "wait_store": 0}


def _load(address: int, register: int, increment: int = 0) -> Instruction:
    return Instruction(
        Opcode.LOAD,
        {
            **IDLE,
            "memory": Memory.VECTOR,
            "address": address,
            "count": CHUNKS,
            "register": register,
            "increment": increment,
        },
    )


def _store(address: int, register: int, **more: int) -> Instruction:
    return Instruction(
        Opcode.VECTOR,
        {
            **IDLE,
            "count": CHUNKS,
            "source": Source.OPERAND,
            "operand0": address,
            "store": Store.VALUES,
            "register": register,
            **more,
        },
    )


INSTRUCTIONS = [
    Instruction(Opcode.HALT, IDLE),
    _load(H, register=3),
    Instruction(Opcode.HALT, IDLE),
    Instruction(Opcode.LOOP, {"use_register": 1, "register": 0, "end": 7}),
    _load(X, register=1, increment=16),
    _store(X, 2, combine=Combine.ADD, operand1=H, write_vector=1, vector_address=H),
    Instruction(Opcode.SET, {**IDLE, "target": 2, "use_source": 1, "source": 2, "value": 16}),
    Instruction(Opcode.END),
    _store(H, 4),
    Instruction(Opcode.HALT, IDLE),
]


def _port(
    name: str, register: int, shape: tuple[int, ...], time_axis: int | None, **more: object
) -> Port:
    return Port(
        name=name,
        kind=Kind.VALUES,
        scale=SCALE,
        shape=shape,
        batch_axis=0,
        time_axis=time_axis,
        elements=CHUNKS * 4,
        positions=tuple(range(FEATURES)),
        register=register,
        stride_bytes=16,
        **more,
    )


@pytest.fixture
def running_sum() -> Program:
    words = b"".join(instruction.encode().to_bytes(16, "little") for instruction in INSTRUCTIONS)
    return Program(
        config=TINY,
        image=np.frombuffer(words, np.uint8),
        instructions=len(INSTRUCTIONS),
        entries={"setup": 0, "reset": 1, "run": 3},
        inputs=(
            _port("x", 1, (-1, -1, 2, 3), 1),
            _port("h0", 3, (-1, FEATURES), None, optional=True),
        ),
        outputs=(_port("output", 2, (-1, -1, 2, 3), 1), _port("h_n", 4, (-1, FEATURES), None)),
    )


@pytest.fixture
def sequence() -> np.ndarray:
    """Two samples of seven steps, multiples of the scale: no rounding."""
    return np.random.default_rng(3).integers(-40, 40, (2, 7, 2, 3)).astype(np.float32) * SCALE
