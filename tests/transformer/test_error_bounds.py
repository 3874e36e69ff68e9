"""Table functions, LayerNorm's quotients and softmax's mass against float64 over all their inputs,
within the bounds that docs/transformers.md states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from espalier.spec import numerics as n
from espalier.tokens import evaluate

ALL = np.arange(n.VALUE_MIN, n.VALUE_MAX + 1)
STEP = 1 << n.TABLE_FRACTION_BITS
BENT = 0.8
"""Largest second derivative of both forms of GELU: 2·phi(0) = 0.798."""


@pytest.mark.parametrize("function", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("reach", [2.0, 6.0, 25.0])
@pytest.mark.parametrize("finer", [0.5, 1.0, 4.0])
def test_gelu_is_within_a_chord_and_a_unit(function: str, reach: float, finer: float) -> None:
    """A segment's chord lies at most step²/8·max|f''| beside f; its ends, its slope's product and
    the result are rounded. Where a segment ends beyond 16 bits it ends there."""
    input_scale = reach / n.VALUE_MAX
    output_scale = input_scale / finer
    result = evaluate.look_up(evaluate.entries(function, input_scale, output_scale), ALL)
    exact = np.array([n.SHAPES[function](float(x)) for x in ALL * input_scale])
    bound = (STEP * input_scale) ** 2 / 8 * BENT + output_scale
    inside = (exact + 1.2 * STEP * input_scale) / output_scale < n.VALUE_MAX
    error = np.abs(result * output_scale - exact)[inside]
    assert error.max() <= bound
    assert error.max() > bound / 4, "the bound has become meaningless"
    assert (result[~inside] * output_scale <= exact[~inside] + bound).all()


def test_exponentials_are_within_three_quarters_of_a_step() -> None:
    """Columns 0..127 of scores below their maximum: half a step of rounding, and 127 times a
    chord's 1/8²/8."""
    table = evaluate.look_up(evaluate.entries("exp", 0, 0), ALL)
    exact = 127 * np.exp(np.minimum(ALL * n.SIGMOID_INPUT_SCALE, 0))
    error = np.abs(evaluate.columns(table) - exact)
    assert 0.6 < error.max() <= 0.75
    assert evaluate.columns(table)[ALL >= 0].min() == 127
    assert np.abs(table * n.EXP_SCALE - exact / 127).max() <= 1 / 8**2 / 8 + n.EXP_SCALE


@pytest.mark.parametrize("gain", [0, 1, 2, 3])
def test_the_division_by_the_mass_keeps_twelve_bits(gain: int) -> None:
    """Every mass that attention over up to 4,096 tokens can have: at least the maximum's 127."""
    mass = np.arange(127, 127 * n.MOST_ELEMENTS + 1)
    multiplier, shift = evaluate.mass_scalar(mass, gain)
    exact = 2.0 ** (n.COLUMN_SHIFT + gain) / mass
    error = 1 - multiplier / 2.0**shift / exact
    assert error.min() >= 0
    assert 2.0**-13 < error.max() <= 2.0**-12


def rows(width: int) -> np.ndarray:
    """Inputs [tokens, width]: noise of every size, noise on a level, spikes, ends, constants."""
    rng = np.random.default_rng(width)
    x = [rng.normal(0, 2.0**size, (20, width)) for size in range(15)]
    x += [rng.normal(level, 2.0**size, (4, width)) for level in (-20000, 9000) for size in (2, 9)]
    spike = np.zeros((4, width))
    spike[[0, 1, 2, 3], [0, 1, 2, 0]] = 32767, -32768, 5, 1
    ends = np.where(rng.random((4, width)) < 0.5, n.VALUE_MIN, n.VALUE_MAX)
    x += [spike, ends, np.full((1, width), n.VALUE_MAX), np.zeros((1, width))]
    return np.concatenate(x).round().clip(n.VALUE_MIN, n.VALUE_MAX).astype(np.int64)


@pytest.mark.parametrize("width", [4, 32, 384, 1024, 4096])
@pytest.mark.parametrize("gain", [0, 6, 10, 12])
def test_layer_norm_keeps_twelve_bits(width: int, gain: int) -> None:
    """(x - mean)/deviation in units of 2^-gain: 2^-12 of |x|/deviation (the multiplier, rounded
    down), 1/(16·width) of |x| + |mean| (the root, rounded down), and 1.6 units (the mean's quotient
    and the sum). Not where the slope is beyond 2^10, for deviations of a few units, or the mean
    takes more than 20 bits."""
    x = rows(width)
    total, squares = x.sum(1, keepdims=True), (x * x).sum(1, keepdims=True)
    scalar = evaluate.moments_scalar(total, squares, width, gain)
    result = n.scale_by_scalar(x, *scalar)
    mean = x.mean(1, keepdims=True)
    variance = np.array([[exact_variance(row)] for row in x])
    unit = 2.0**gain / np.sqrt(variance + 1)
    exact = (x - mean) * unit
    steep = (unit >= 2.0**10)[:, 0]
    loud = np.abs(mean) * unit > n.BIAS_MAX  # the mean alone does not fit
    checked = ~steep & ~loud[:, 0]
    assert checked.sum() > 200
    bound = np.abs(x) * unit * (2.0**-12 + 1 / (16 * width)) + np.abs(mean) * unit / (16 * width)
    error = np.abs(result - exact)
    assert (error <= bound + 1.6)[checked].all()
    assert error[checked].max() > 0.5


def exact_variance(row: np.ndarray) -> float:
    """Without cancellation: from Python's integers."""
    total, squares, count = int(row.sum()), int((row * row).sum()), len(row)
    return (count * squares - total * total) / count**2


def test_the_root_is_rounded_down() -> None:
    """Square numbers and their neighbours up to 2^61, where float64 no longer has every integer."""
    rng = np.random.default_rng(0)
    roots = np.concatenate([[1, 2, 3], rng.integers(1, 2**30, 2000), rng.integers(1, 2**16, 2000)])
    for value in (roots**2, roots**2 - 1, roots**2 + 2 * roots):
        expected = [math.isqrt(int(v)) for v in value]
        np.testing.assert_array_equal(evaluate.square_root(value), expected)
