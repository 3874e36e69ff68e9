"""What every operation of a token graph computes in real numbers, and how far rounding may be off.

Bounds come from the steps of the machine's numbers, see docs/transformers.md.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from espalier.spec import numerics
from espalier.tokens import graph as tg
from espalier.tokens.evaluate import columns, moments_scalar


def reference(operation: tg.Operation, values: dict) -> tuple[np.ndarray, float]:
    """An operation in real numbers and the largest error that its rounding explains."""

    def real(tensor: tg.Tensor) -> np.ndarray:
        return values[tensor] * tensor.scale

    def column(tensor: tg.Tensor) -> np.ndarray:
        return columns(values[tensor]) * (tensor.scale * 256)

    unit = operation.output.scale
    match operation:
        case tg.Linear(input=x, matrix=matrix, rows=rows):
            factor = rows.multiplier / 2.0**rows.shift
            total = columns(values[x]) @ matrix.weight.astype(np.int64).T
            return (total * factor + rows.bias / 16) * unit, 0.6 * unit
        case tg.Add(a=a, b=b):
            return real(a) + real(b), 1e-6 * unit
        case tg.Rescale(input=x):
            multiplier, shift = operation.factor
            return values[x] * (multiplier / 2.0**shift) * unit, 0.6 * unit
        case tg.Table(function=function, input=x):
            exact = np.vectorize(numerics.SHAPES[function])(real(x))
            ends = numerics.VALUE_MAX * unit - 1.13 * 512 * x.scale  # a segment may end saturated
            exact = np.where(exact < ends, exact, np.nan)
            chord = (512 * x.scale) ** 2 / 8 * 0.8  # GELU's second derivative is below 0.8
            return exact, chord + 2 * unit
        case tg.LayerNorm(input=x, factor=factor, offset=offset, gain=gain):
            v = values[x].astype(float)
            normal = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1)
            scaled = normal * 2**gain * factor / 4096  # saturates before the offset is added
            exact = (scaled.clip(numerics.VALUE_MIN, numerics.VALUE_MAX) + offset) * unit
            return exact, unit * (norm_bound(values[x], gain) * np.abs(factor).max() / 4096 + 0.5)
        case tg.Attention(query=q, key=k, value=v, heads=heads):
            parts = (column(t).reshape(len(values[q]), heads, -1) for t in (q, k, v))
            query, key, value = (torch.from_numpy(t).transpose(0, 1) for t in parts)
            real_scale = operation.multiplier / 2.0**operation.shift * tg.SCORE_SCALE
            real_scale /= q.scale * k.scale * 256**2
            result = nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=operation.causal, scale=real_scale
            )
            # Half a step of 127 in every unnormalised weight, against the largest, which is 127.
            seen = len(values[q])
            bound = 0.5 / 127 * seen * float(value.abs().max()) * 2
            return result.transpose(0, 1).flatten(1).numpy(), bound
    raise TypeError(type(operation).__name__)


def norm_bound(x: np.ndarray, gain: int) -> float:
    """Most that (x - mean)/deviation·2^gain is off, in units, for x [tokens, width]: the root and
    both quotients are rounded down, then the multiplier to 18 bits, then the sum to a unit."""
    width, total, squares = x.shape[1], x.sum(1), (x * x).sum(1)
    multiplier, shift, _ = moments_scalar(total, squares, width, gain)
    spread = width * squares - total * total + width * width
    root = np.floor(np.sqrt(spread.astype(float) * 4**numerics.NORM_BITS))
    slope = np.abs(x).max(1) * (multiplier + 1) / 2.0**shift
    mean = np.abs(total) * 2.0 ** (gain + numerics.NORM_BITS) / root
    return float((slope * (1 / multiplier + 1 / root) + mean / root + 1 + 9 / 16).max())
