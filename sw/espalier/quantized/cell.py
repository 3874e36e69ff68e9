"""One GRU layer and direction with the machine's arithmetic, forwards and backwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..spec import numerics
from .arithmetic import (
    STATE_COLUMN_SCALE,
    STATE_SCALE,
    hold_back_sequence,
    look_up,
    product,
    product_dtype,
    saturate,
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


class Step(NamedTuple):
    """What one time step makes of 16-bit integers, as float64 [B, H]; gates are [B, 2H] of r, z."""

    gates: Tensor
    new: Tensor
    new_hidden: Tensor
    state: Tensor


def integer_step(cell: GruCell, total_i: Tensor, total_h: Tensor, h: Tensor) -> Step:
    """One time step: sums W_ih·x8, W_hh·h8 [B, 3H] and h16 [B, H] to r, z, n, u, h'.

    r, z, n, h are Q0.15, u is Q2.13. All are integers in float64, which holds every product here.
    """
    gates_i, new_i = cell.split(total_i)
    gates_h, new_h = cell.split(total_h)
    gates = look_up("sigmoid", cell.gates.requantize(gates_i.double() + gates_h))
    r, z = gates.chunk(2, dim=-1)
    u = cell.new_hidden.requantize(new_h.double())
    v = cell.new_input.requantize(new_i.double())
    # Gates are 0 <= r, z < 2^15: neither u·r nor the new state can leave 16 bits.
    n = look_up("tanh", saturate(v.add_(round_gate(u * r))))
    return Step(gates, n, u, round_gate(z * (h - n)).add_(n))


def round_gate(value: Tensor) -> Tensor:
    """value / 2^15 rounded, ties up, in place: what remains of a product with a gate."""
    return value.mul_(STATE_SCALE).add_(0.5).floor_()


def state_columns(state: Tensor) -> Tensor:
    """h8 of integer states h16: their upper bytes, rounded."""
    low, high = numerics.COLUMN_MIN, numerics.COLUMN_MAX
    return (state * 2.0**-numerics.COLUMN_SHIFT).add_(0.5).floor_().clamp_(low, high)


class _Trace(NamedTuple):
    """What the gradient needs of all time steps: integers as floats, [T, B, 2H or H]."""

    gates: Tensor
    new: Tensor
    new_hidden: Tensor
    columns: Tensor

    @classmethod
    def like(cls, states: Tensor) -> _Trace:
        """Memory for the steps of these states [T, B, H]."""
        shape = *states.shape[:2], 2 * states.shape[2]
        return cls(states.new_empty(shape), *(torch.empty_like(states) for _ in range(3)))

    def keep(self, t: int, step: Step, columns: Tensor) -> None:
        for store, part in zip(self, (*step[:3], columns), strict=True):
            store[t] = part


def integer_states(
    cell: GruCell, total_i: Tensor, h: Tensor, trace: _Trace | None, states: Tensor
) -> None:
    """Fill the states [T, B, H] that follow from W_ih·x8 [T, B, 3H] and the state h [B, H]."""
    weight = cell.weight_hh.to(product_dtype(cell.weight_hh)).T.contiguous()
    state = torch.round(h.double() / STATE_SCALE)
    sent = torch.zeros_like(state)
    for t, total in enumerate(total_i):
        columns = state_columns(state)
        if cell.hidden_threshold:
            columns = torch.where((columns - sent).abs() <= cell.hidden_threshold, sent, columns)
        sent, columns = columns, columns.to(weight.dtype)
        step = integer_step(cell, total, columns @ weight, state)
        state = step.state
        states[t] = state * STATE_SCALE
        if trace is not None:
            trace.keep(t, step, columns)


class _Recurrence(torch.autograd.Function):
    """All time steps on floats; backwards PyTorch's equations at the machine's values.

    total_i [T, B, 3H] and weight_hh [3H, H] are integer-valued, h [B, H] is real; biases only
    receive gradients. Gives states [T, B, H]. Gradients pass straight through what rounds and what
    holds back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        total_i: Tensor,
        weight_hh: Tensor,
        h: Tensor,
        gates_bias: Tensor,
        input_bias: Tensor,
        hidden_bias: Tensor,
        cell: GruCell,
        trained: bool,
    ) -> Tensor:
        states = h.new_empty((len(total_i), *h.shape))
        trace = _Trace.like(states) if trained else None
        integer_states(cell, total_i, h, trace, states)
        if trace is not None:
            ctx.cell, ctx.total_dtype = cell, total_i.dtype
            ctx.save_for_backward(weight_hh, h, states, *trace)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight_hh, h0, states, *parts = ctx.saved_tensors
        cell, trace = ctx.cell, _Trace(*parts)
        scale = torch.cat([cell.gates.scale, cell.new_hidden.scale])
        real_weight = weight_hh * (scale / STATE_COLUMN_SCALE)[:, None]
        new, hidden, h = _through_time(gradient, real_weight, trace, h0, states)
        gates, new_hidden = cell.split(hidden)
        total_i = torch.cat([gates * cell.gates.scale, new * cell.new_input.scale], dim=-1)
        weight = (hidden.flatten(0, 1).T @ trace.columns.flatten(0, 1)).mul_(scale[:, None])
        biases = (part.sum(dim=(0, 1)) for part in (gates, new, new_hidden))
        return total_i.to(ctx.total_dtype), weight, h, *biases, None, None


def _through_time(
    gradient: Tensor, real_weight: Tensor, trace: _Trace, h0: Tensor, states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of v + r·u [T, B, H], of r's, z's argument and u [T, B, 3H], and of h0 [B, H].

    `gradient` [T, B, H] is that of the states; real_weight [3H, H] takes states to u's units.
    Step by step also where steps are independent: what fits the cache costs least.
    """
    hidden = gradient.new_empty((*gradient.shape[:2], 3 * gradient.shape[2]))
    new, back = torch.empty_like(gradient), torch.zeros_like(h0)
    for t in range(len(gradient) - 1, -1, -1):
        r, z = (trace.gates[t] * STATE_SCALE).chunk(2, dim=-1)
        n, u = trace.new[t] * STATE_SCALE, trace.new_hidden[t] * numerics.TANH_INPUT_SCALE
        arriving = gradient[t] + back
        to_n = torch.mul(arriving * (1 - z), 1 - n * n, out=new[t])
        to_u = to_n * r
        to_z = ((states[t - 1] if t else h0) - n) * arriving * z * (1 - z)
        torch.cat([to_u * u * (1 - r), to_z, to_u], dim=-1, out=hidden[t])
        back = torch.addmm(arriving * z, hidden[t], real_weight)
    return new, hidden, back


def run_cell(cell: GruCell, columns: Tensor, h: Tensor) -> Tensor:
    """States [T, B, H] of a sequence of column inputs x8 [T, B, I] from the state h [B, H].

    Last-sent values start at 0 for every sequence, also where h does not.
    """
    total_i = product(hold_back_sequence(columns, cell.input_threshold), cell.weight_ih)
    arguments = (
        total_i, cell.weight_hh, h, cell.gates.bias, cell.new_input.bias, cell.new_hidden.bias
    )  # fmt: skip
    trained = torch.is_grad_enabled() and any(a.requires_grad for a in arguments)
    return _Recurrence.apply(*arguments, cell, trained)
