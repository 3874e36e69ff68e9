"""A GRU with the machine's arithmetic: all layers and directions of an nn.GRU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from ..parameters import GruCellParameters
from ..spec import numerics
from . import ops
from .arithmetic import (
    STATE_COLUMN_SCALE,
    STATE_SCALE,
    grid_scale,
    hold_back_sequence,
    straight_through,
    to_columns,
    to_values,
)
from .base import QuantModule
from .cell import GruCell, run_cell
from .weights import RowTensors, integer_weight, largest_scale, make_matrix, make_rows, row_scales


class QuantGRU(QuantModule):
    """`nn.GRU` with int8 columns, 4- or 8-bit weights, 16-bit states: same arguments, same results.

    Equations, rounding and formats are `GruCellParameters`'. The sum of a reset or update row joins
    W_ih·x8 and W_hh·h8, so these rows share one scale over both matrices; rows of the new gate have
    one for each.
    `thresholds` (per matrix, in units of its columns) hold back small differences; `delta` says
    whether the machine is to take columns as differences.
    """

    blocks = 3

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = (
            gru.input_size,
            gru.hidden_size,
            gru.num_layers,
        )
        self.bias, self.batch_first, self.dropout = gru.bias, gru.batch_first, gru.dropout
        self.bidirectional = gru.bidirectional
        self.delta = True
        self.thresholds: dict[str, int] = {}
        self.register_buffer("input_scale", torch.zeros((), dtype=torch.float64))
        for name, parameter in gru.named_parameters():
            if name.startswith("weight"):
                self._add_matrix(name, parameter)
                self.thresholds[name] = 0
            else:
                self._add_parameter(name, parameter)
        for suffix in self._suffixes():
            self.register_buffer(f"gates_scale_{suffix}", torch.ones(2 * self.hidden_size))
            self.register_buffer(f"new_input_scale_{suffix}", torch.ones(self.hidden_size))
            self.register_buffer(f"new_hidden_scale_{suffix}", torch.ones(self.hidden_size))
        self.train(gru.training)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self) -> Iterator[str]:
        """Name endings of the cells in PyTorch's order: layer by layer, forward first."""
        for layer in range(self.num_layers):
            yield from (f"l{layer}", f"l{layer}_reverse")[: self.directions]

    def flatten_parameters(self) -> None:
        """Nothing to do; models call it on an nn.GRU."""

    def set_scales(self, input_scale: float) -> None:
        """Set the column scale of the first layer's input, rounded up to 8 significant bits."""
        self.input_scale.fill_(grid_scale(input_scale))
        self.update_scales()

    def _input_scale(self, suffix: str) -> float:
        return self._scale("input_scale") if suffix.startswith("l0") else STATE_COLUMN_SCALE

    def _levels(self, name: str) -> Tensor:
        weight = getattr(self, name)
        return torch.full_like(weight[0], numerics.WEIGHT_LEVELS[self.bit_widths[name]])

    @torch.no_grad()
    def update_scales(self) -> None:
        """Fit or follow all row scales, in products' units: weight scale times column scale."""
        for suffix in self._suffixes():
            if self.is_fitted(f"gates_scale_{suffix}"):
                self._fit_scales(suffix)
            self.follow_scale(f"gates_scale_{suffix}", largest_scale(numerics.SIGMOID_INPUT_SCALE))
            for part in ("input", "hidden"):
                limit = largest_scale(numerics.TANH_INPUT_SCALE)
                self.follow_scale(f"new_{part}_scale_{suffix}", limit)

    def _fit_scales(self, suffix: str) -> None:
        names = f"weight_ih_{suffix}", f"weight_hh_{suffix}"
        columns = self._input_scale(suffix), STATE_COLUMN_SCALE
        products = [self.masked(name) * scale for name, scale in zip(names, columns, strict=True)]
        levels = [self._levels(name) for name in names]
        moments = [self.moments.get(name) for name in names]
        (gates_i, new_i), (gates_h, new_h) = (
            p.split([2 * self.hidden_size, self.hidden_size]) for p in products
        )
        joint = None
        if all(moment is not None for moment in moments):  # of x8 and h8, taken as independent
            parts = (m / (c * c) for m, c in zip(moments, columns, strict=True))
            joint = torch.block_diag(*parts)
        rows, limit = torch.cat([gates_i, gates_h], 1), largest_scale(numerics.SIGMOID_INPUT_SCALE)
        self._fit(f"gates_scale_{suffix}", rows, torch.cat(levels), limit, joint)
        limit = largest_scale(numerics.TANH_INPUT_SCALE)
        self._fit(f"new_input_scale_{suffix}", new_i, levels[0], limit, moments[0])
        self._fit(f"new_hidden_scale_{suffix}", new_h, levels[1], limit, moments[1])

    def _fit(
        self, name: str, rows: Tensor, levels: Tensor, limit: float, moment: Tensor | None
    ) -> None:
        getattr(self, name).copy_(row_scales(rows, levels, limit, self.search, moment))

    @property
    def row_scales(self) -> list[str]:
        """Names of all row scales."""
        rows = "gates", "new_input", "new_hidden"
        return [f"{name}_scale_{suffix}" for suffix in self._suffixes() for name in rows]

    def _weight_scale(self, suffix: str, part: str) -> Tensor:
        """Row scales [3H] of weight_ih (part "input") or weight_hh ("hidden")."""
        scales = getattr(self, f"gates_scale_{suffix}"), getattr(self, f"new_{part}_scale_{suffix}")
        return torch.cat(scales) / (
            self._input_scale(suffix) if part == "input" else STATE_COLUMN_SCALE
        )

    def _integer_weight(self, suffix: str, part: str) -> Tensor:
        name = f"weight_{'ih' if part == 'input' else 'hh'}_{suffix}"
        logs = [self.log_scale(f"{rows}_scale_{suffix}") for rows in ("gates", f"new_{part}")]
        return integer_weight(
            self.masked(name),
            self._weight_scale(suffix, part),
            self.bit_widths[name],
            None if logs[0] is None else torch.cat(logs),
        )

    def _biases(self, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
        """b_ih + b_hh of r and z, b_in, b_hn."""
        hidden = self.hidden_size
        if not self.bias:
            zeros = torch.zeros_like(getattr(self, f"gates_scale_{suffix}"))
            return zeros, zeros[:hidden], zeros[:hidden]
        b_ih, b_hh = getattr(self, f"bias_ih_{suffix}"), getattr(self, f"bias_hh_{suffix}")
        return b_ih[: 2 * hidden] + b_hh[: 2 * hidden], b_ih[2 * hidden :], b_hh[2 * hidden :]

    def _rows(self, suffix: str) -> tuple[RowTensors, RowTensors, RowTensors]:
        """Row parameters of gates, new_input and new_hidden."""
        biases = self._biases(suffix)
        names = "gates", "new_input", "new_hidden"
        units = numerics.SIGMOID_INPUT_SCALE, numerics.TANH_INPUT_SCALE, numerics.TANH_INPUT_SCALE
        scales = (getattr(self, f"{name}_scale_{suffix}") for name in names)
        gates, new_input, new_hidden = map(make_rows, scales, biases, units)
        return gates, new_input, new_hidden

    def _cell(self, suffix: str) -> GruCell:
        weights = (self._integer_weight(suffix, part) for part in ("input", "hidden"))
        thresholds = self.thresholds[f"weight_ih_{suffix}"], self.thresholds[f"weight_hh_{suffix}"]
        return GruCell(*weights, *self._rows(suffix), *thresholds)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As nn.GRU: (y, h_n) of x [T, B, I], [B, T, I] if batch_first, or [T, I].

        hx and h_n are [layers·D, B, H], without B for [T, I].
        """
        self._check(input, hx)
        if torch.compiler.is_exporting():
            sizes = self.hidden_size, self.num_layers, self.bidirectional, self.batch_first
            return ops.gru(input, hx, self.path, *sizes)
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x  # [T, B, I]
        h0 = (
            x.new_zeros(self.num_layers * self.directions, x.shape[1], self.hidden_size)
            if hx is None
            else hx
        )
        h0 = h0 if batched or hx is None else h0.unsqueeze(1)
        with torch._C.DisableTorchFunction():  # 25 % faster: TableFunctions sees none of the calls
            y, h_n = (self._float_forward if self.float_mode else self._integer_forward)(x, h0)
        if not batched:
            return y.squeeze(1), h_n.squeeze(1)
        return (y.transpose(0, 1) if self.batch_first else y), h_n

    def _check(self, x: Tensor, hx: Tensor | None) -> None:
        if isinstance(x, PackedSequence):
            raise InputError(
                "input must be a tensor, not a PackedSequence: pad, or run sequences one by one"
            )
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            shape = tuple(x.shape)
            raise InputError(
                f"GRU input must have 2 or 3 dimensions, the last of {self.input_size}; not {shape}"
            )
        if hx is None:
            return
        batch = () if x.dim() == 2 else (x.shape[0 if self.batch_first else 1],)
        expected = (self.num_layers * self.directions, *batch, self.hidden_size)
        if tuple(hx.shape) != expected:
            raise InputError(f"GRU initial state must be {expected}, not {tuple(hx.shape)}")

    def _integer_forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, I], h0 [layers·D, B, H] to (y [T, B, D·H], h_n)."""
        if x.shape[0] == 0:
            raise InputError("GRU input must have at least one time step")
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        h0 = straight_through(
            h0.to(x.dtype), (to_values(h0, STATE_SCALE) * STATE_SCALE).to(x.dtype)
        )
        final = []
        for index, suffix in enumerate(self._suffixes()):
            reverse = suffix.endswith("_reverse")
            if not reverse:
                columns, outputs = to_columns(x, self._input_scale(suffix)), []
            cell, inputs = self._cell(suffix), columns.flip(0) if reverse else columns
            states = run_cell(cell, inputs, h0[index])
            if self.watched:
                self._watch(suffix, cell, inputs, torch.cat([h0[index, None], states[:-1]]))
            final.append(states[-1])
            outputs.append(states.flip(0) if reverse else states)
            if len(outputs) == self.directions:
                x = torch.cat(outputs, dim=-1)
                last = index == self.num_layers * self.directions - 1
                x = x if last else functional.dropout(x, self.dropout, self.training)
        return x, torch.stack(final)

    def _watch(self, suffix: str, cell: GruCell, inputs: Tensor, h: Tensor) -> None:
        """Keep what is sent of inputs x8 [T, B, I], and of the states h [T, B, H] before steps."""
        hidden = to_columns(h, STATE_COLUMN_SCALE)
        self.sent[f"weight_ih_{suffix}"] = hold_back_sequence(inputs, cell.input_threshold)
        self.sent[f"weight_hh_{suffix}"] = hold_back_sequence(hidden, cell.hidden_threshold)

    def _float_forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        """The same in real numbers, pruned."""
        weights = []
        for suffix in self._suffixes():
            weights += [self.masked(f"weight_{part}_{suffix}") for part in ("ih", "hh")]
            if self.bias:
                weights += [getattr(self, f"bias_ih_{suffix}"), getattr(self, f"bias_hh_{suffix}")]
        return torch.gru(
            x,
            h0,
            weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            False,
        )

    def integer(self) -> tuple[tuple[GruCellParameters, ...], ...]:
        """The integers for the compiler: cells[layer][direction]."""
        with torch.no_grad():
            cells = [self._integer_cell(suffix) for suffix in self._suffixes()]
        size = self.directions
        return tuple(tuple(cells[i : i + size]) for i in range(0, len(cells), size))

    def _integer_cell(self, suffix: str) -> GruCellParameters:
        cell = self._cell(suffix)
        return GruCellParameters(
            weight_ih=make_matrix(cell.weight_ih, self.bit_widths[f"weight_ih_{suffix}"]),
            weight_hh=make_matrix(cell.weight_hh, self.bit_widths[f"weight_hh_{suffix}"]),
            gates=cell.gates.integer(),
            new_input=cell.new_input.integer(),
            new_hidden=cell.new_hidden.integer(),
            input_scale=self._input_scale(suffix),
            input_threshold=cell.input_threshold,
            hidden_threshold=cell.hidden_threshold,
            delta=self.delta,
        )

    def extra_repr(self) -> str:
        bits = ", ".join(f"{name}={bits}" for name, bits in self.bit_widths.items())
        sizes = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{sizes}, weight_bits: {bits}"
