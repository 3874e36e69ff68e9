"""Transformers on the simulated hardware: every word written and every counter equals the
reference's, under random stalls."""

from __future__ import annotations

import random

import numpy as np
import pytest
from paired import compare
from token_graphs import Maker, decoder, encoder

from espalier.compiler.tokens.build import build_tokens
from espalier.errors import CapacityError
from espalier.program import Program
from espalier.spec.config import SMALL, TINY, Config
from espalier.tokens.evaluate import evaluate
from espalier.tokens.graph import TokenGraph

BUSES = ({}, {"stall": 0.3, "seed": 5, "latency": 3}, {"stall": 0.1, "seed": 7, "latency": 40})
MOST_CYCLES = 400_000


def program_of(graph: TokenGraph, config: Config, most: int) -> Program:
    return build_tokens(graph, config, most_tokens=most, notes={})


def tokens(graph: TokenGraph, count: int, seed: int = 0) -> np.ndarray:
    width = graph.operations[0].output.width
    return np.random.default_rng(seed).integers(-12000, 12000, (count, width))


def check(graph: TokenGraph, config: Config, most: int, count: int, **bus: float) -> int:
    """The hardware's cycles, when all is equal."""
    x = tokens(graph, count)
    result, cycles = compare(
        program_of(graph, config, most), lambda session: session.run_integers(x), **bus
    )
    np.testing.assert_array_equal(result, evaluate(graph, x)[graph.outputs["hidden"]])
    assert cycles < MOST_CYCLES
    return cycles


@pytest.mark.parametrize("bus", BUSES, ids=["free", "stalls", "late"])
@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda config: config.name)
def test_an_encoder(config, bus):
    check(encoder(1), config, 16, 7, **bus)


@pytest.mark.parametrize("bus", BUSES, ids=["free", "stalls", "late"])
def test_a_decoder_in_parts(bus):
    """Prefill, then token by token: the cache of keys and values stays in DDR."""
    graph = decoder(2)
    x = tokens(graph, 6)

    def script(session) -> list[np.ndarray]:
        machine = session._machine
        machine.restart()
        return [machine.run(part) for part in (x[:3], x[3:4], x[4:])]

    parts, _ = compare(program_of(graph, TINY, 12), script, **bus)
    whole = evaluate(graph, x)[graph.outputs["hidden"]]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_eight_bits_in_tiles():
    graph = encoder(4, layers=1, width=48, heads=3, inner=100, bits=8, density=1.0)
    program = program_of(graph, TINY, 6)
    assert any("tiles" in name for block in program.notes["passes"] for name in block)
    check(graph, TINY, 6, 3, stall=0.2, seed=2)


@pytest.mark.parametrize("seed", range(10))
def test_random_transformers(seed):
    """1-2 layers, 1-8 heads of 4-64, lengths of 1-130 tokens, with or without causal mask."""
    draw = random.Random(seed)
    maker = Maker(seed, draw.choice([4, 8]), draw.choice([0.2, 0.6]))
    heads, size = draw.choice([(1, 64), (2, 16), (3, 5), (4, 8), (8, 4), (2, 33)])
    x = maker.input(heads * size)
    layer = draw.choice([maker.post_norm_layer, maker.pre_norm_layer])
    causal = draw.random() < 0.5
    for _ in range(draw.randint(1, 2)):
        x = layer(x, heads, draw.choice([8, 50, 2 * heads * size + 1]), causal)
    most = draw.choice([1, 3, 17, 40, 130])
    graph = maker.finish(x, most)
    count = min(most, draw.choice([1, 2, 16, 130]) if maker.bits == 4 else 9)
    bus = draw.choice(BUSES)
    try:
        check(graph, SMALL, most, count, **bus)
    except CapacityError as error:
        pytest.fail(f"SMALL should hold it: {error}")
