"""The evaluation of token graphs against plain loops over their docstrings."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_transformers as tiny

from espalier.spec import numerics
from espalier.tokens import evaluate
from espalier.tokens.graph import SCORE_GAIN, Attention, LayerNorm, Tensor
from espalier.transformer import quantize


@pytest.mark.parametrize("count", [1, 32, 384, 4096])
@pytest.mark.parametrize("largest", [1, 300, 32767])
def test_moments_are_those_of_numerics(count: int, largest: int) -> None:
    x = np.random.default_rng(count).integers(-largest, largest + 1, (40, count))
    x[0], x[1] = 32767, -32768
    total, squares = x.sum(1), (x * x).sum(1)
    for gain in (0, 5, 10, 14):
        result = np.array(evaluate.moments_scalar(total, squares, count, gain)).T
        expected = [
            numerics.moments_scalar(int(a), int(b), count, gain)
            for a, b in zip(total, squares, strict=True)
        ]
        assert (result == expected).all()


def test_masses_and_maxima_are_those_of_numerics() -> None:
    generator = np.random.default_rng(0)
    mass = np.concatenate([[0, 1, 127], generator.integers(0, 127 * 4096, 500)])
    largest = generator.integers(-32768, 32768, 500)
    for gain in range(5):
        multiplier, shift = evaluate.mass_scalar(mass, gain)
        expected = [numerics.mass_scalar(int(m), gain)[:2] for m in mass]
        assert (expected == np.array([multiplier, shift]).T).all()
        factor, down, bias = evaluate.maximum_scalar(largest, gain)
        for m, b in zip(largest, bias, strict=True):
            assert (factor, down, b) == numerics.maximum_scalar(int(m), gain)


def loops(o: Attention, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Attention as its docstring says it, one number after another."""
    q, k, v = (evaluate.columns(x).reshape(len(x), o.heads, -1) for x in (query, key, value))
    k, v = k.clip(-119, 119), v.clip(-119, 119)
    exp = evaluate.entries("exp", 0, 0)
    result = np.zeros_like(v)
    for head in range(o.heads):
        for i in range(len(q)):
            seen = i + 1 if o.causal else len(q)
            totals = k[:seen, head] @ q[i, head]
            s = evaluate.saturate(numerics.scale_sum(totals, o.multiplier, o.shift, 0))
            scalar = numerics.maximum_scalar(int(s.max()), SCORE_GAIN)
            d = evaluate.saturate(numerics.scale_by_scalar(s, *scalar))
            e = evaluate.columns(evaluate.look_up(exp, d))
            divide = numerics.mass_scalar(int(e.sum()), o.gain)
            total = e @ v[:seen, head]
            result[i, head] = evaluate.saturate(numerics.scale_by_scalar(total, *divide))
    return result.reshape(len(q), -1)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_its_docstring(causal: bool) -> None:
    q, k, v, y = (Tensor(name, 24, 1.0) for name in "qkvy")
    operation = Attention(q, k, v, y, 3, 8, 200_000, 14, causal, 1)
    generator = np.random.default_rng(1)
    values = [generator.integers(-32768, 32768, (13, 24)) for _ in range(3)]
    result = evaluate.attention(operation, *values)
    assert (result == loops(operation, *values)).all()
    assert len(np.unique(result)) > 100


def test_layer_norm_is_its_docstring() -> None:
    generator = np.random.default_rng(2)
    x = generator.integers(-3000, 9000, (6, 48))
    factor, offset = (generator.integers(-9000, 9000, 48).astype(np.int16) for _ in range(2))
    operation = LayerNorm(Tensor("x", 48, 1.0), Tensor("y", 48, 1.0), factor, offset, 10)
    for row, result in zip(x, evaluate.layer_norm(operation, x), strict=True):
        scalar = numerics.moments_scalar(int(row.sum()), int((row * row).sum()), 48, 10)
        v = evaluate.saturate(numerics.scale_by_scalar(row, *scalar))
        v = evaluate.saturate(numerics.amplify(v, factor.astype(np.int64)))
        assert (result == evaluate.saturate(v + offset)).all()


def test_known_results_replace_computed_ones() -> None:
    graph = quantize(tiny.gpt2(layers=1), tiny.ids(2, 5)).graph()
    tokens = np.zeros((5, 64), np.int64)
    first, last = graph.operations[1].output, graph.operations[-1].output
    given = np.full((5, first.width), 7777)
    plain, replaced = (
        evaluate.evaluate(graph, tokens),
        evaluate.evaluate(graph, tokens, {first: given}),
    )
    assert (replaced[first] == 7777).all() and (plain[last] != replaced[last]).any()
