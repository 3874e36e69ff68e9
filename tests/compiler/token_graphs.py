"""Random token graphs, without torch."""

from __future__ import annotations

import random

import numpy as np

from espalier.parameters import Matrix, Rows
from espalier.spec.numerics import WEIGHT_LEVELS, row_scale
from espalier.tokens.graph import (
    SCORE_SCALE,
    Add,
    Attention,
    Input,
    LayerNorm,
    Linear,
    Relu,
    Rescale,
    Table,
    Tensor,
    TokenGraph,
)


class Maker:
    """Builds a graph operation by operation, with plausible scales."""

    def __init__(self, seed: int, bits: int = 4, density: float = 0.5):
        self.rng = np.random.default_rng(seed)
        self.draw = random.Random(seed)
        self.bits, self.density = bits, density
        self.graph = TokenGraph()
        self.count = 0

    def tensor(self, width: int, scale: float) -> Tensor:
        self.count += 1
        return Tensor(f"t{self.count}", width, scale)

    def add(self, operation):
        self.graph.operations.append(operation)
        return operation.output

    def input(self, width: int) -> Tensor:
        return self.add(Input(self.tensor(width, 2.0**-12)))

    def linear(self, x: Tensor, width: int, scale: float | None = None) -> Tensor:
        level = WEIGHT_LEVELS[self.bits]
        weight = self.rng.integers(-level, level + 1, (width, x.width)).astype(np.int16)
        weight[self.rng.random(weight.shape) > self.density] = 0
        gain = 127.0 * 40 * level * 0.3 * np.sqrt(x.width * self.density) / 12000
        factors = [row_scale(float(f) / gain) for f in self.rng.uniform(0.5, 1.5, width)]
        multiplier, shift = np.array(factors, np.int64).T
        bias = self.rng.integers(-20000, 20000, width)
        rows = Rows(multiplier=multiplier, shift=shift, bias=bias)
        output = self.tensor(width, scale or x.scale)
        name = f"linear{self.count}"
        return self.add(Linear(name, x, output, Matrix(weight=weight, bit_width=self.bits), rows))

    def norm(self, x: Tensor, gain: int = 11) -> Tensor:
        factor = self.rng.integers(-6000, 20000, x.width).astype(np.int16)
        offset = self.rng.integers(-3000, 3000, x.width).astype(np.int16)
        return self.add(LayerNorm(x, self.tensor(x.width, 2.0**-12), factor, offset, gain))

    def residual(self, a: Tensor, b: Tensor) -> Tensor:
        if a.scale != b.scale:
            a = self.add(Rescale(a, self.tensor(a.width, b.scale)))
        return self.add(Add(a, b, self.tensor(b.width, b.scale)))

    def gelu(self, x: Tensor) -> Tensor:
        return self.add(Table("gelu", x, self.tensor(x.width, x.scale / 2)))

    def relu(self, x: Tensor) -> Tensor:
        return self.add(Relu(x, self.tensor(x.width, x.scale)))

    def attention(self, q, k, v, heads: int, causal: bool) -> Tensor:
        size = q.width // heads
        multiplier, shift = row_scale(0.35 / np.sqrt(size))
        output = self.tensor(v.width, v.scale / 2)
        assert SCORE_SCALE
        return self.add(Attention(q, k, v, output, heads, size, multiplier, shift, causal, 1))

    def post_norm_layer(self, x: Tensor, heads: int, inner: int, causal: bool = False) -> Tensor:
        """A BERT layer."""
        q, k, v = (self.linear(x, x.width) for _ in range(3))
        a = self.linear(self.attention(q, k, v, heads, causal), x.width, x.scale * 1.5)
        x = self.norm(self.residual(x, a))
        y = self.linear(self.gelu(self.linear(x, inner)), x.width, x.scale * 1.5)
        return self.norm(self.residual(x, y))

    def pre_norm_layer(self, x: Tensor, heads: int, inner: int, causal: bool = True) -> Tensor:
        """A GPT-2 layer."""
        y = self.norm(x)
        q, k, v = (self.linear(y, x.width) for _ in range(3))
        a = self.linear(self.attention(q, k, v, heads, causal), x.width, x.scale)
        x = self.residual(x, a)
        y = self.linear(self.gelu(self.linear(self.norm(x), inner)), x.width, x.scale)
        return self.residual(x, y)

    def finish(self, x: Tensor, most_tokens: int) -> TokenGraph:
        self.graph.outputs["hidden"] = x
        self.graph.most_tokens = most_tokens
        return self.graph


def encoder(
    seed: int, *, layers=2, width=16, heads=2, inner=24, bits=4, density=0.5, most_tokens=16
) -> TokenGraph:
    maker = Maker(seed, bits, density)
    x = maker.input(width)
    for _ in range(layers):
        x = maker.post_norm_layer(x, heads, inner)
    return maker.finish(x, most_tokens)


def decoder(
    seed: int, *, layers=2, width=16, heads=2, inner=24, bits=4, density=0.5, most_tokens=16, out=11
) -> TokenGraph:
    maker = Maker(seed, bits, density)
    x = maker.input(width)
    for _ in range(layers):
        x = maker.pre_norm_layer(x, heads, inner)
    return maker.finish(maker.linear(maker.norm(x), out), most_tokens)
