"""The only rounding, saturation, digit and table arithmetic of the project.

Every function uses `+ - * >> &` and comparison-free integer arithmetic only, so the same definition
serves Python integers, NumPy int64 arrays and torch int64 tensors. Saturation does not vectorise
that way: this module gives the bounds (`VALUE_MIN` ...), and callers clip with their own library.
`>>` is an arithmetic shift (floor).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

VALUE_MIN, VALUE_MAX = -(1 << 15), (1 << 15) - 1
"""Bounds of a vector element (16 bits)."""
COLUMN_MIN, COLUMN_MAX = -127, 127
"""Bounds of a column input (8 bits, symmetric)."""
DELTA_MAX = 254
"""Largest difference of two column inputs; sent as two visits when it exceeds COLUMN_MAX."""
COLUMN_SHIFT = 8
"""A column input is a vector element rounded to its upper byte."""
GATE_BITS = 15
"""Fraction bits of gates: sigmoid and tanh give Q0.15."""
FACTOR_BITS = 12
"""Fraction bits of an amplifying factor (Combine.AMPLIFY): Q3.12, so that |factor| < 8."""
GUARD_BITS = 4
"""Extra fraction bits that the bias and the scaled sum keep before the final rounding."""

MULTIPLIER_BITS = 18
BIAS_BITS = 20
BIAS_MIN, BIAS_MAX = -(1 << (BIAS_BITS - 1)), (1 << (BIAS_BITS - 1)) - 1
SHIFTS = (8, 14, 20, 26)
"""The four right shifts of a row's scale; a multiplier in [2^12, 2^18) with them covers scales
2^-14 .. 2^10."""

TABLE_SEGMENTS = 128
TABLE_FRACTION_BITS = 9
"""Input bits below the segment number: 16 = 7 + 9."""

NORM_BITS = 4
"""Extra bits of the square root in `moments_scalar`."""
MOST_ELEMENTS = 4096
"""Elements that one reduction may take: with them all its sums fit 64 bits."""

DIGIT_MIN, DIGIT_MAX = -8, 7
WEIGHT_LEVELS = {4: 7, 8: 119}
"""Largest weight magnitude by bit width: one digit, or 16·7 + 7."""


def round_shift(value: Any, bits: int) -> Any:
    """value / 2^bits rounded to nearest, ties towards plus infinity; bits >= 1."""
    return (value + (1 << (bits - 1))) >> bits


def split_digits(weight: Any) -> tuple[Any, Any]:
    """(low, high) balanced base-16 digits of a weight in [-119, 119]: weight = 16·high + low, low
    in [-8, 7]."""
    low = ((weight + 8) & 15) - 8
    return low, (weight - low) >> 4


def scale_sum(total: Any, multiplier: Any, shift: Any, bias: Any) -> Any:
    """Requantize a 27-bit sum: (floor(total·multiplier / 2^(shift-4)) + bias) / 16 rounded;
    saturate to VALUE afterwards.

    multiplier is unsigned 18 bits, shift one of SHIFTS, bias 20 bits in sixteenths of the result's
    unit. The product
    needs 45 bits: callers use 64-bit integers.
    """
    return round_shift(((total * multiplier) >> (shift - GUARD_BITS)) + bias, GUARD_BITS)


def scale_by_scalar(total: Any, multiplier: Any, shift: Any, bias: Any) -> Any:
    """`scale_sum` with a bias in units of the result, 20 bits as well: what Scale.SCALAR does;
    saturate to VALUE afterwards."""
    return scale_sum(total, multiplier, shift, bias << GUARD_BITS)


def multiply_values(a: Any, b: Any) -> Any:
    """a·b in Q0.15, rounded; saturate to VALUE afterwards."""
    return round_shift(a * b, GATE_BITS)


def amplify(value: Any, factor: Any) -> Any:
    """value·factor with the factor in Q3.12, rounded; saturate to VALUE afterwards."""
    return round_shift(value * factor, FACTOR_BITS)


def interpolate(value: Any, gate: Any, other: Any) -> Any:
    """value + gate·(other - value), gate in Q0.15, rounded; saturate to VALUE afterwards. GRU: n +
    z·(h - n)."""
    return value + round_shift(gate * (other - value), GATE_BITS)


def column_input(value: Any) -> Any:
    """A vector element as a column input (its upper byte, rounded); saturate to COLUMN
    afterwards."""
    return round_shift(value, COLUMN_SHIFT)


def table_segment(value: Any) -> Any:
    """Segment number 0..127 of a 16-bit signed input."""
    return (value >> TABLE_FRACTION_BITS) + TABLE_SEGMENTS // 2


def table_value(value: Any, base: Any, slope: Any) -> Any:
    """Piecewise-linear function within one segment: base + slope·fraction / 2^9 rounded; saturate
    to VALUE afterwards."""
    fraction = value & ((1 << TABLE_FRACTION_BITS) - 1)
    return base + round_shift(slope * fraction, TABLE_FRACTION_BITS)


def clip(value: int, low: int, high: int) -> int:
    """Saturate one Python integer."""
    return low if value < low else high if value > high else value


def quantize(value: float, scale: float, low: int, high: int) -> int:
    """The integer nearest value / scale (ties up), saturated."""
    return clip(math.floor(value / scale + 0.5), low, high)


def maximum_scalar(maximum: int, gain: int) -> tuple[int, int, int]:
    """(multiplier, shift, bias) with which `scale_by_scalar` gives (x - maximum)·2^gain; at most
    3."""
    return 1 << (SHIFTS[0] + gain), SHIFTS[0], -(maximum << gain)


def mass_scalar(mass: int, gain: int) -> tuple[int, int, int]:
    """(multiplier, shift, 0) with which `scale_by_scalar` gives x·2^(8+gain) / mass; a mass of 0
    counts as 1."""
    shift = SHIFTS[-1]
    return *narrow_scale((1 << (shift + COLUMN_SHIFT + gain)) // max(mass, 1)), 0


def moments_scalar(total: int, squares: int, count: int, gain: int) -> tuple[int, int, int]:
    """(multiplier, shift, bias) with which `scale_by_scalar` gives (x - mean) / deviation·2^gain.

    total and squares are the sums of x and x² over `count` elements; deviation² is their variance
    plus one unit², so that it is never 0: with d = count·squares - total² + count² it is
    sqrt(d) / count. The root is taken with NORM_BITS extra bits, rounded down like both quotients.
    """
    root = math.isqrt((count * squares - total * total + count * count) << (2 * NORM_BITS))
    multiplier, shift = narrow_scale((count << (SHIFTS[-1] + gain + NORM_BITS)) // root)
    offset = (abs(total) << (gain + NORM_BITS)) // root
    return multiplier, shift, clip(-offset if total > 0 else offset, BIAS_MIN, BIAS_MAX)


def narrow_scale(quotient: int) -> tuple[int, int]:
    """(multiplier, shift) of quotient / 2^26: the largest of SHIFTS with which the multiplier fits
    18 bits, rounded down; saturated."""
    for shift in reversed(SHIFTS):
        multiplier = quotient >> (SHIFTS[-1] - shift)
        if multiplier < 1 << MULTIPLIER_BITS:
            return multiplier, shift
    return (1 << MULTIPLIER_BITS) - 1, SHIFTS[0]


def row_scale(scale: float) -> tuple[int, int]:
    """(multiplier, shift) with multiplier / 2^shift nearest to a row's scale, 0 <= scale < 1024.

    Raises ValueError when the scale is out of range; scales below 2^-14 lose precision down to 0.
    """
    if not 0 <= scale < 1 << (MULTIPLIER_BITS - SHIFTS[0]):
        raise ValueError(
            f"row scale must be in 0..{1 << (MULTIPLIER_BITS - SHIFTS[0])}, not {scale!r}"
        )
    for shift in reversed(SHIFTS):
        multiplier = math.floor(scale * (1 << shift) + 0.5)
        if multiplier < 1 << MULTIPLIER_BITS:
            return multiplier, shift
    raise ValueError(f"row scale must be below {1 << (MULTIPLIER_BITS - SHIFTS[0])}, not {scale!r}")


def row_bias(bias: float, unit: float) -> int:
    """A bias in sixteenths of the result's unit, saturated to 20 bits."""
    return quantize(bias, unit / (1 << GUARD_BITS), BIAS_MIN, BIAS_MAX)


def make_table(
    function: Callable[[float], float], input_scale: float, output_scale: float
) -> list[tuple[int, int]]:
    """128 segments (base, slope) of `function`: chords between the exact values at the segment
    ends.

    input_scale and output_scale are the values of one unit. slope is the difference over one
    segment (16 bits signed).
    """
    step = 1 << TABLE_FRACTION_BITS
    ends = [VALUE_MIN + step * i for i in range(TABLE_SEGMENTS + 1)]
    values = [
        quantize(function(end * input_scale), output_scale, VALUE_MIN, VALUE_MAX) for end in ends
    ]
    return [(a, clip(b - a, VALUE_MIN, VALUE_MAX)) for a, b in pairwise(values)]


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: float) -> float:
    return x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


SIGMOID_INPUT_SCALE = 2.0**-12
"""Sigmoid's input is Q3.12: [-8, 8)."""
TANH_INPUT_SCALE = 2.0**-13
"""Tanh's input is Q2.13: [-4, 4)."""
GATE_SCALE = 2.0**-GATE_BITS
EXP_SCALE = 1 / (COLUMN_MAX << COLUMN_SHIFT)
"""exp gives 127 column units at 0: its input, Q3.12 like sigmoid's, is never positive."""
FUNCTIONS: dict[str, tuple[Callable[[float], float], float, float]] = {
    "sigmoid": (sigmoid, SIGMOID_INPUT_SCALE, GATE_SCALE),
    "tanh": (math.tanh, TANH_INPUT_SCALE, GATE_SCALE),
    "exp": (lambda x: math.exp(min(x, 0.0)), SIGMOID_INPUT_SCALE, EXP_SCALE),
}
"""Table functions of fixed scales: (function, input scale, output scale)."""
SHAPES: dict[str, Callable[[float], float]] = {"gelu": gelu, "gelu_tanh": gelu_tanh}
"""Table functions whose scales a model chooses."""
