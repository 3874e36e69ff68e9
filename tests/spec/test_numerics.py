"""The arithmetic against exact rationals, floats and hand-computed vectors."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.spec import numerics as n


@given(st.integers(-(1 << 50), 1 << 50), st.integers(1, 30))
def test_round_shift_is_nearest_with_ties_up(value, bits):
    assert n.round_shift(value, bits) == math.floor(Fraction(value, 1 << bits) + Fraction(1, 2))


def test_round_shift_by_hand():
    assert [n.round_shift(v, 1) for v in (-3, -2, -1, 0, 1, 2, 3)] == [-1, -1, 0, 0, 1, 1, 2]


def test_round_shift_takes_numpy_as_well():
    values = np.array([-384, -129, -128, 127, 128, 383, 384])
    assert n.round_shift(values, 8).tolist() == [-1, -1, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("weight", range(-119, 120))
def test_digits_are_balanced_and_sum_up(weight):
    low, high = n.split_digits(weight)
    assert 16 * high + low == weight
    assert n.DIGIT_MIN <= low <= n.DIGIT_MAX and -7 <= high <= 7


@given(
    st.integers(-(1 << 26), (1 << 26) - 1),
    st.integers(0, (1 << 18) - 1),
    st.sampled_from(n.SHIFTS),
    st.integers(n.BIAS_MIN, n.BIAS_MAX),
)
def test_scale_sum_is_within_a_sixteenth_of_exact(total, multiplier, shift, bias):
    exact = Fraction(total * multiplier, 1 << shift) + Fraction(bias, 16)
    assert (
        Fraction(-1, 2) - Fraction(1, 16)
        <= n.scale_sum(total, multiplier, shift, bias) - exact
        <= Fraction(1, 2)
    )


def test_scale_sum_by_hand():
    # 1000 * 3 / 2^8 = 11.71875, floor in sixteenths = 187/16; + 5/16 = 12.
    assert n.scale_sum(1000, 3, 8, 5) == 12
    assert n.scale_sum(-1000, 3, 8, 0) == -12


@given(st.floats(2.0**-14, 1023, allow_nan=False))
def test_row_scale_keeps_twelve_bits(scale):
    multiplier, shift = n.row_scale(scale)
    assert 0 <= multiplier < 1 << n.MULTIPLIER_BITS and shift in n.SHIFTS
    assert abs(multiplier / (1 << shift) - scale) <= scale * 2.0**-12


@pytest.mark.parametrize("scale", [-1.0, 1024.0, float("inf"), float("nan")])
def test_row_scale_refuses(scale):
    with pytest.raises(ValueError, match="row scale must be"):
        n.row_scale(scale)


@pytest.mark.parametrize(("name", "bound"), [("sigmoid", 2.0**-12), ("tanh", 2.0**-11)])
def test_tables_follow_their_function_over_the_whole_range(name, bound):
    """The chord's error is at most step^2/8·max|f''| (sigmoid 0.0962, tanh 0.7698) plus a few
    roundings of 2^-16."""
    function, input_scale, output_scale = n.FUNCTIONS[name]
    table = np.array(n.make_table(function, input_scale, output_scale), np.int64)
    x = np.arange(n.VALUE_MIN, n.VALUE_MAX + 1)
    base, slope = table[n.table_segment(x)].T
    y = np.clip(n.table_value(x, base, slope), n.VALUE_MIN, n.VALUE_MAX)
    exact = np.array([function(v * input_scale) for v in x])
    worst = np.abs(y * output_scale - exact).max()
    assert worst < bound
    assert worst > bound / 16, "the bound has become meaningless"


def test_interpolate_ends_are_exact():
    # z = 0 keeps n; z = 32767/32768 gives h but for one 2^-15 of the distance.
    assert n.interpolate(1234, 0, -20000) == 1234
    assert n.interpolate(0, 32767, 20000) == 19999


def test_column_input_is_the_rounded_upper_byte():
    assert [n.column_input(v) for v in (-32768, -129, -128, 0, 127, 128, 32767)] == [
        -128,
        -1,
        0,
        0,
        0,
        1,
        128,
    ]


def test_quantize_saturates():
    assert n.quantize(0.5, 1.0, -127, 127) == 1
    assert n.quantize(1e9, 1.0, -127, 127) == 127
