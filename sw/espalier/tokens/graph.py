"""A transformer as integer operations on tokens, nothing of torch left.

A `Tensor` is [tokens, width] of 16-bit elements of one scale. Every operation but `Attention` works
on each token by itself. All arithmetic is `espalier.spec.numerics`, sat16 saturates to 16 bits, and
column(x) = sat8(column_input(x)) is the upper byte, with which an element goes into a product: its
scale is 256 times the tensor's. `evaluate.py` computes a graph as these docstrings say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..parameters import Matrix, Rows
from ..spec import numerics


@dataclass(eq=False)
class Tensor:
    """[tokens, width] int16 of one scale; `source` is the user's line, for messages."""

    name: str
    width: int
    scale: float
    source: str = ""


@dataclass(eq=False)
class Input:
    """What the host gives: embedded tokens."""

    output: Tensor


@dataclass(eq=False)
class Linear:
    """sat16(scale_sum(W·column(input), rows)); `name` is the matrix's name in the user's model."""

    name: str
    input: Tensor
    output: Tensor
    matrix: Matrix
    rows: Rows


@dataclass(eq=False)
class Table:
    """sat16(table_value(input)): a piecewise-linear function from the input's scale to the
    output's.

    `function` is one of numerics.SHAPES or of numerics.FUNCTIONS, whose scales are given there.
    """

    function: str
    input: Tensor
    output: Tensor


@dataclass(eq=False)
class Relu:
    """max(input, 0); same scale."""

    input: Tensor
    output: Tensor


@dataclass(eq=False)
class Rescale:
    """sat16(scale_sum(input, multiplier, shift, 0)), from the input's scale to the output's."""

    input: Tensor
    output: Tensor

    @property
    def factor(self) -> tuple[int, int]:
        """(multiplier, shift)."""
        return numerics.row_scale(self.input.scale / self.output.scale)


@dataclass(eq=False)
class Add:
    """sat16(a + b); all three have one scale."""

    a: Tensor
    b: Tensor
    output: Tensor


@dataclass(eq=False)
class LayerNorm:
    """Over the width: s = moments_scalar(sum x, sum x², width, gain);
    v = sat16(scale_by_scalar(x, s)); v = sat16(amplify(v, factor)); y = sat16(v + offset).

    factor, offset: int16 [width], Q3.12 and units of the output. v before the factor is the
    normalised x in units of 2^-gain.
    """

    input: Tensor
    output: Tensor
    factor: np.ndarray
    offset: np.ndarray
    gain: int


@dataclass(eq=False)
class Attention:
    """Scaled-dot-product attention of `heads` heads of `head_size` elements, head after head.

    With q = column(query), k and v = column(key) and column(value) saturated to ±119, for each head
    and token i over the tokens j that it may see (j <= i when causal, otherwise all):

        s[j] = sat16(scale_sum(q[i]·k[j], multiplier, shift, 0))
        d[j] = sat16(scale_by_scalar(s[j], maximum_scalar(max s, SCORE_GAIN)))   Q3.12, never > 0
        e[j] = column(sat16(table_value(d[j])))                             table "exp"
        output[i] = sat16(scale_by_scalar(sum e[j]·v[j], mass_scalar(sum e, gain)))

    so that the output's scale is the value's divided by 2^gain; a score has the scale SCORE_SCALE.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    heads: int
    head_size: int
    multiplier: int
    shift: int
    causal: bool
    gain: int


SCORE_GAIN = 2
SCORE_SCALE = numerics.SIGMOID_INPUT_SCALE * (1 << SCORE_GAIN)
"""Scores in Q5.10: within ±32."""

Operation = Input | Linear | Table | Relu | Rescale | Add | LayerNorm | Attention


@dataclass(eq=False)
class TokenGraph:
    """Operations in order of execution, one Input first; `outputs` are tensors that the host
    reads, by name."""

    operations: list[Operation] = field(default_factory=list)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    most_tokens: int = 0
    """The longest sequence that the model takes."""
