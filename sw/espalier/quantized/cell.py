"""One GRU layer and direction with the machine's arithmetic, forwards and backwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..spec import numerics
from .arithmetic import (
    STATE_COLUMN_SCALE,
    STATE_SCALE,
    hold_back,
    hold_back_sequence,
    product,
    saturate,
    straight_through,
    table,
)
from .weights import RowTensors


class GruCell(NamedTuple):
    """Integers of a cell as tensors; gate order r, z, n. The torch twin of `GruCellParameters`."""

    weight_ih: Tensor
    """[3H, I] integer-valued"""
    weight_hh: Tensor
    """[3H, H] integer-valued"""
    gates: RowTensors
    new_input: RowTensors
    new_hidden: RowTensors
    input_threshold: int
    hidden_threshold: int

    @property
    def hidden_size(self) -> int:
        return self.weight_hh.shape[1]

    def split(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """Rows r, z and rows n of [..., 3H]."""
        return total[..., : 2 * self.hidden_size], total[..., 2 * self.hidden_size :]


def integer_step(cell: GruCell, total_i: Tensor, total_h: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """One time step in int64: W_ih·x8, W_hh·h8 [B, 3H] and h16 [B, H] to (r, z, n, u, h').

    r, z, n, h are Q0.15, u is Q2.13; every line is one saturating operation of the vector unit.
    """
    gates_i, new_i = cell.split(total_i)
    gates_h, new_h = cell.split(total_h)
    r, z = table("sigmoid", cell.gates.requantize(gates_i + gates_h)).chunk(2, dim=-1)
    u = cell.new_hidden.requantize(new_h)
    v = cell.new_input.requantize(new_i)
    n = table("tanh", saturate(v + saturate(numerics.multiply_values(u, r))))
    return r, z, n, u, saturate(numerics.interpolate(n, z, h))


class _Step(torch.autograd.Function):
    """`integer_step` on floats; backwards PyTorch's equations at the machine's values.

    total_i, total_h [B, 3H] integer-valued, h [B, H] real; biases only receive gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        total_i: Tensor,
        total_h: Tensor,
        h: Tensor,
        gates_bias: Tensor,
        input_bias: Tensor,
        hidden_bias: Tensor,
        cell: GruCell,
    ) -> Tensor:
        state = torch.round(h / STATE_SCALE).long()
        r, z, n, u, new = integer_step(cell, total_i.long(), total_h.long(), state)
        r, z, n, new = ((part * STATE_SCALE).to(h.dtype) for part in (r, z, n, new))
        ctx.save_for_backward(r, z, n, (u * numerics.TANH_INPUT_SCALE).to(h.dtype), h)
        ctx.cell = cell
        return new

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        r, z, n, u, h = ctx.saved_tensors
        cell = ctx.cell
        new = gradient * (1 - z) * (1 - n * n)
        reset = new * u * r * (1 - r)
        update = gradient * (h - n) * z * (1 - z)
        gates = torch.cat([reset, update], dim=-1)
        hidden = new * r
        total_i = torch.cat([gates * cell.gates.scale, new * cell.new_input.scale], dim=-1)
        total_h = torch.cat([gates * cell.gates.scale, hidden * cell.new_hidden.scale], dim=-1)
        biases = gates.sum(dim=0), new.sum(dim=0), hidden.sum(dim=0)
        return total_i, total_h, gradient * z, *biases, None


def state_columns(h: Tensor) -> Tensor:
    """h8 of states that are multiples of 2^-15: their upper bytes; gradient of h / 2^-7."""
    value = torch.round(h.detach() / STATE_SCALE).long()
    exact = numerics.column_input(value).clamp(numerics.COLUMN_MIN, numerics.COLUMN_MAX)
    return straight_through(h / STATE_COLUMN_SCALE, exact.to(h.dtype))


def run_cell(cell: GruCell, columns: Tensor, h: Tensor) -> Tensor:
    """States [T, B, H] of a sequence of column inputs x8 [T, B, I] from the state h [B, H].

    Last-sent values start at 0 for every sequence, also where h does not.
    """
    total_i = product(hold_back_sequence(columns, cell.input_threshold), cell.weight_ih)
    biases = cell.gates.bias, cell.new_input.bias, cell.new_hidden.bias
    sent = torch.zeros_like(h)
    states = []
    for step in total_i:
        sent = hold_back(state_columns(h), sent, cell.hidden_threshold)
        h = _Step.apply(step, product(sent, cell.weight_hh), h, *biases, cell)
        states.append(h)
    return torch.stack(states)
