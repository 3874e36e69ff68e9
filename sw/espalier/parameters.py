"""Integer layers, NumPy only: what a quantized torch module hands to the compiler.

All arithmetic is `espalier.spec.numerics`. A real value is integer times scale. Column inputs are
int8 with scale s8, vector elements int16 with scale s16; a value becomes a column input by its
upper byte, so a tensor with element scale s16 has column scale 256·s16. GRU states, sigmoid and
tanh have s16 = 2^-15, so s8 = 2^-7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .spec.numerics import BIAS_MAX, BIAS_MIN, MULTIPLIER_BITS, SHIFTS, WEIGHT_LEVELS


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Requantization of a block of rows: value = sat16(scale_sum(sum, multiplier, shift, bias)).
    int64 arrays [rows]."""

    multiplier: np.ndarray
    shift: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        if (
            not self.multiplier.shape == self.shift.shape == self.bias.shape
            or self.multiplier.ndim != 1
        ):
            raise ValueError("multiplier, shift and bias must be vectors of one length")
        if not np.isin(self.shift, SHIFTS).all():
            raise ValueError(f"shift must be one of {SHIFTS}")
        if ((self.multiplier < 0) | (self.multiplier >= 1 << MULTIPLIER_BITS)).any():
            raise ValueError(f"multiplier must have {MULTIPLIER_BITS} bits")
        if ((self.bias < BIAS_MIN) | (self.bias > BIAS_MAX)).any():
            raise ValueError(f"bias must be in {BIAS_MIN}..{BIAS_MAX}")

    def __len__(self) -> int:
        return len(self.multiplier)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """Integer weights [rows, columns] (int16, |w| <= 7 or 119) and their bit width (4 or 8)."""

    weight: np.ndarray
    bit_width: int

    def __post_init__(self) -> None:
        if self.bit_width not in WEIGHT_LEVELS:
            raise ValueError(
                f"bit_width must be one of {tuple(WEIGHT_LEVELS)}, not {self.bit_width}"
            )
        if self.weight.ndim != 2 or self.weight.size == 0:
            raise ValueError(f"weight must be a matrix, not {self.weight.shape}")
        if np.abs(self.weight).max() > WEIGHT_LEVELS[self.bit_width]:
            raise ValueError(
                f"weights of {self.bit_width} bits must be within ±{WEIGHT_LEVELS[self.bit_width]}"
            )

    @property
    def planes(self) -> int:
        """Digit planes."""
        return self.bit_width // 4


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearParameters:
    """y16 = sat16(scale_sum(W·x8, rows)); x8 has scale input_scale, y16 has scale output_scale."""

    matrix: Matrix
    rows: Rows
    input_scale: float
    output_scale: float


@dataclass(frozen=True, kw_only=True, eq=False)
class GruCellParameters:
    """One layer and direction of a GRU with I inputs and H units; PyTorch's gate order (r, z, n).

    a = sat16(scale_sum(W_ih[rz]·x8 + W_hh[rz]·h8, gates)) in Q3.12; r, z = sigmoid table (Q0.15)
    u = sat16(scale_sum(W_hh[n]·h8, new_hidden)) in Q2.13
    v = sat16(scale_sum(W_ih[n]·x8, new_input)) in Q2.13
    n = tanh table(sat16(v + sat16(multiply_values(u, r))))
    h' = sat16(interpolate(n, z, h)) in Q0.15; h8 = sat8(column_input(h'))

    x8 and h8 may be held back by delta thresholds: a column keeps its last-sent value while
    |new - last| <= threshold (units of x8, h8); thresholds of 0 change nothing.
    """

    weight_ih: Matrix
    """[3H, I], rows r, z, n"""
    weight_hh: Matrix
    """[3H, H]"""
    gates: Rows
    """[2H]: r, z with b_ih + b_hh"""
    new_input: Rows
    """[H] with b_in"""
    new_hidden: Rows
    """[H] with b_hn"""
    input_scale: float
    input_threshold: int = 0
    hidden_threshold: int = 0
    delta: bool = True
    """Take columns as differences; must be True when a threshold is above 0."""

    def __post_init__(self) -> None:
        hidden = len(self.new_input)
        if self.weight_ih.weight.shape[0] != 3 * hidden or self.weight_hh.weight.shape != (
            3 * hidden,
            hidden,
        ):
            raise ValueError("weight_ih must be [3H, I] and weight_hh [3H, H]")
        if len(self.gates) != 2 * hidden or len(self.new_hidden) != hidden:
            raise ValueError("gates must have 2H rows, new_hidden H")
        if not (0 <= self.input_threshold <= 254 and 0 <= self.hidden_threshold <= 254):
            raise ValueError("delta thresholds must be 0..254")
        if (self.input_threshold or self.hidden_threshold) and not self.delta:
            raise ValueError("thresholds above 0 need delta")

    @property
    def hidden_size(self) -> int:
        return len(self.new_input)

    @property
    def input_size(self) -> int:
        return self.weight_ih.weight.shape[1]
