"""Token graphs on the reference machine: what a program computes equals the graph, integer for
integer."""

from __future__ import annotations

import random

import numpy as np
import pytest
from token_graphs import Maker, decoder, encoder

from espalier.compiler.tokens.build import build_tokens
from espalier.errors import CapacityError, InputError, UnsupportedModelError
from espalier.program import Program
from espalier.runtime.driver import Driver
from espalier.runtime.token_machine import TokenMachine
from espalier.spec.config import DE1_SOC, SMALL, TINY, Config
from espalier.tokens.evaluate import evaluate
from espalier.tokens.graph import TokenGraph
from espalier_sim.reference.device import open_reference


def machine(graph: TokenGraph, config: Config, most: int) -> TokenMachine:
    program = build_tokens(graph, config, most_tokens=most, notes={})
    return TokenMachine(Driver(open_reference()(config), program), program)


def tokens(graph: TokenGraph, count: int, seed: int = 0) -> np.ndarray:
    width = graph.operations[0].output.width
    return np.random.default_rng(seed).integers(-12000, 12000, (count, width))


def expected(graph: TokenGraph, x: np.ndarray) -> np.ndarray:
    return evaluate(graph, x)[graph.outputs["hidden"]]


def random_graph(seed: int, config: Config) -> tuple[TokenGraph, int]:
    """A transformer of 1 to 3 layers, and the longest sequence."""
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 3, 4, 8])
    size = draw.choice([4, 5, 8, 16, 32, 64] if config is not TINY else [4, 5, 8])
    maker = Maker(seed, draw.choice([4, 8]), draw.choice([0.1, 0.5, 1.0]))
    x = maker.input(heads * size)
    layer = draw.choice([maker.post_norm_layer, maker.pre_norm_layer])
    inner, causal = draw.choice([8, 20, 2 * heads * size + 3]), draw.random() < 0.5
    for _ in range(draw.randint(1, 3)):
        x = layer(x, heads, inner, causal)
    if draw.random() < 0.5:
        x = maker.linear(maker.norm(x), draw.randint(1, 70))
    most = draw.randint(1, 40 if config is TINY else 130)
    return maker.finish(x, most), most


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(8))
def test_random_transformers(config, seed):
    """1-3 layers, 1-8 heads of 4-64, widths and lengths that are no multiple of anything, causal or
    not; a graph that does not fit says so."""
    graph, most = random_graph(1000 * config.lanes + seed, config)
    try:
        runs = machine(graph, config, most)
    except CapacityError as error:
        assert config.name in str(error)
        return
    x = tokens(graph, random.Random(seed).randint(1, most))
    np.testing.assert_array_equal(runs.run(x), expected(graph, x))


@pytest.mark.parametrize("cuts", [[6], [5, 1], [1] * 6, [2, 3, 1]])
def test_a_sequence_in_any_parts(cuts):
    """Prefill and steps equal the whole sequence, bit for bit."""
    graph = decoder(3)
    runs, x = machine(graph, TINY, 16), tokens(graph, 6)
    ends = np.cumsum(cuts)
    parts = [runs.run(x[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    np.testing.assert_array_equal(np.concatenate(parts), expected(graph, x))
    assert runs.position == 6


def test_a_new_sequence_forgets_the_old_one():
    """Also when it is shorter: nothing of earlier keys, values or exponentials is left."""
    for graph in (encoder(5), decoder(5)):
        runs = machine(graph, TINY, 16)
        runs.run(tokens(graph, 15, seed=1))
        runs.restart()
        x = tokens(graph, 4, seed=2)
        np.testing.assert_array_equal(runs.run(x), expected(graph, x))


def test_equal_layers_share_their_code():
    short, long = (
        build_tokens(encoder(1, layers=n), TINY, most_tokens=8, notes={}) for n in (2, 5)
    )
    assert short.instructions == long.instructions
    assert len(long.layers) == 5 * 6


def test_weights_beyond_the_chip_pass_in_tiles():
    graph = encoder(2, layers=2, width=48, heads=3, inner=100, bits=8, density=1.0)
    program = build_tokens(graph, TINY, most_tokens=6, notes={})
    assert any("tiles" in name for block in program.notes["passes"] for name in block)
    runs = TokenMachine(Driver(open_reference()(TINY), program), program)
    x = tokens(graph, 5)
    np.testing.assert_array_equal(runs.run(x), expected(graph, x))


def test_files_keep_token_programs(tmp_path):
    program = build_tokens(decoder(1), TINY, most_tokens=8, notes={})
    loaded = Program.load(program.save(tmp_path / "d.espalier"))
    assert loaded.tokens == program.tokens and loaded.host is None


def test_too_many_tokens_are_refused():
    graph = decoder(1)
    runs = machine(graph, TINY, 8)
    runs.run(tokens(graph, 5))
    with pytest.raises(CapacityError, match="holds 8 tokens, not 9"):
        runs.run(tokens(graph, 4))
    with pytest.raises(InputError, match="at least one token"):
        runs.run(tokens(graph, 0))


def test_an_encoder_cannot_be_continued():
    graph = encoder(1)
    runs = machine(graph, TINY, 8)
    runs.run(tokens(graph, 2))
    with pytest.raises(InputError, match="run it whole"):
        runs.run(tokens(graph, 1))


def test_heads_that_do_not_fit_are_named():
    with pytest.raises(CapacityError, match=r"attention over 400 tokens.*TINY.*max_length"):
        machine(encoder(1), TINY, 400)


def test_one_tensor_for_two_attentions_is_refused():
    maker = Maker(1)
    x = maker.input(16)
    q, k, v = (maker.linear(x, 16) for _ in range(3))
    first = maker.attention(q, k, v, 2, False)
    second = maker.attention(q, maker.linear(x, 16), maker.linear(x, 16), 2, False)
    graph = maker.finish(maker.linear(maker.residual(first, second), 8), 8)
    with pytest.raises(UnsupportedModelError):
        machine(graph, TINY, 8)
