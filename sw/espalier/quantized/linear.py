"""A linear layer with the machine's arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..parameters import LinearParameters
from ..spec.numerics import WEIGHT_LEVELS
from . import ops
from .arithmetic import grid_scale, product, to_columns
from .base import QuantModule
from .weights import RowTensors, integer_weight, largest_scale, make_matrix, make_rows, row_scales


class _Requantize(torch.autograd.Function):
    """totals [..., M] to real values on the output grid; gradient of total·scale + bias."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, bias: Tensor, rows: RowTensors) -> Tensor:
        ctx.scale = rows.scale
        return (rows.requantize(total.double()) * rows.unit).to(total.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient * ctx.scale, gradient.reshape(-1, gradient.shape[-1]).sum(dim=0), None


class QuantLinear(QuantModule):
    """`nn.Linear` with int8 inputs, 4- or 8-bit weights: y16 = sat16(scale_sum(W·x8, rows)).

    x [..., in_features] is rounded to x8 = floor(x / input_scale + 0.5) within ±127;
    y [..., out_features] is y16·output_scale.

    Members
    -------
    feeds: path of the module whose columns are the results' upper bytes, if there is one;
        output_scale is its input_scale / 256.
    input_free: whether the input scale may be learned: nothing else depends on it but those.
    """

    feeds: str | None = None
    input_free: bool = False

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._add_matrix("weight", linear.weight)
        self._add_parameter("bias", linear.bias)
        self.register_buffer("input_scale", torch.zeros((), dtype=torch.float64))
        self.register_buffer("output_scale", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight_scale", torch.ones(self.out_features))
        self.train(linear.training)

    def set_scales(self, input_scale: float, output_scale: float) -> None:
        """Set the scales of columns and outputs, rounded up to 8 significant bits."""
        self.input_scale.fill_(grid_scale(input_scale))
        self.output_scale.fill_(grid_scale(output_scale))
        if "input_scale" in self.learned_scales:
            self.log_input_scale.data.copy_(self.input_scale.log())
        self.update_scales()

    @property
    def row_scales(self) -> list[str]:
        return ["weight_scale"]

    def follow_input_scale(self) -> None:
        """Take over the input scale that was learned."""
        if self.input_free:
            self.follow_scale("input_scale", grid=grid_scale)

    @torch.no_grad()
    def update_scales(self) -> None:
        """Fit or follow the row scales; rows that the output scale cannot hold are clipped."""
        calibrated = float(self.input_scale) > 0
        limit = (
            largest_scale(float(self.output_scale)) / float(self.input_scale)
            if calibrated
            else torch.inf
        )
        if self.is_fitted("weight_scale"):
            weight, moment = self.masked("weight"), self.moments.get("weight")
            levels = torch.full_like(weight[0], WEIGHT_LEVELS[self.bit_widths["weight"]])
            self.weight_scale.copy_(row_scales(weight, levels, limit, self.search, moment))
        self.follow_scale("weight_scale", limit)

    def _integer_weight(self) -> Tensor:
        return integer_weight(
            self.masked("weight"),
            self.weight_scale,
            self.bit_widths["weight"],
            self.log_scale("weight_scale"),
        )

    def _columns(self, x: Tensor) -> Tensor:
        log = self.log_scale("input_scale") if self.input_free else None
        columns = to_columns(x, self._scale("input_scale"), log)
        if self.watched:
            self.sent["weight"] = columns
        return columns

    def _rows(self) -> RowTensors:
        bias = self.weight_scale.new_zeros(self.out_features) if self.bias is None else self.bias
        return make_rows(
            self.weight_scale * self._scale("input_scale"), bias, self._scale("output_scale")
        )

    def forward(self, input: Tensor) -> Tensor:
        """As nn.Linear: [..., in_features] to [..., out_features]."""
        x = input
        if torch.compiler.is_exporting():
            return ops.linear(x, self.path, self.out_features)
        if self.float_mode:
            return functional.linear(x, self.masked("weight"), self.bias)
        rows = self._rows()
        total = product(self._columns(x), self._integer_weight())
        return _Requantize.apply(total, rows.bias, rows).to(
            torch.promote_types(x.dtype, torch.float32)
        )

    def integer(self) -> LinearParameters:
        """The layer's integers for the compiler."""
        with torch.no_grad():
            return LinearParameters(
                matrix=make_matrix(self._integer_weight(), self.bit_widths["weight"]),
                rows=self._rows().integer(),
                input_scale=self._scale("input_scale"),
                output_scale=self._scale("output_scale"),
            )

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, weight_bits={self.bit_widths['weight']}"
