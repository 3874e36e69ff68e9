"""A transformer's program on the accelerator: set-up and runs of one sequence in parts, compared
with the reference machine after each.

ESPALIER_PROGRAM is the program's file, of a causal model or of one part; ESPALIER_PARTS says how
many tokens each run takes, like "2,1". Tokens are drawn from the seed.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import cocotb
import numpy as np

from espalier.runtime import ports
from espalier.runtime.token_buffers import TokenBuffers
from espalier_sim.reference.memories import Memories

from .accelerator import CONFIG, SEED
from .network import PROGRAM, Pair
from .programs import WINDOW_BYTES

PARTS = [int(part) for part in os.environ["ESPALIER_PARTS"].split(",")]
MOST_CYCLES = 20_000
LARGEST = 12_000
"""Of a token's elements: LayerNorms and scores then stay within their range."""

MEMORIES = Memories(CONFIG)
"""Of the reference machine in all tests: a pass writes rows ahead of the record from whatever the
vector memory holds, and a reset of the accelerator leaves its memories as they are."""


def tokens(random: Random, count: int) -> bytes:
    """The input rows of `count` tokens."""
    (port,) = PROGRAM.inputs
    values = [[random.randint(-LARGEST, LARGEST) for _ in port.positions] for _ in range(count)]
    return ports.encode(port, CONFIG, np.array(values)).tobytes()


async def _tokens(dut: Any, stall: float) -> None:
    pair, random = Pair(dut, stall), Random(SEED)
    pair.machine.memories = MEMORIES
    await pair.power_up()
    buffers, position = TokenBuffers.of(PROGRAM, WINDOW_BYTES), 0
    await pair.start("setup", {}, load=True)
    for count in PARTS:
        pair.write(buffers.input, tokens(random, count))
        await pair.start("run", buffers.registers(position, count))
        assert pair.bench.memory.written, "nothing came out"
        position += count
    dut._log.info("%d cycles", pair.cycles)
    assert pair.cycles <= MOST_CYCLES, f"{pair.cycles} cycles: take a smaller model"


@cocotb.test()
async def without_stalls(dut: Any) -> None:
    await _tokens(dut, 0.0)


@cocotb.test()
async def with_stalls(dut: Any) -> None:
    await _tokens(dut, 0.3)
