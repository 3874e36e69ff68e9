"""The GRU cell's time steps in one C loop each: half of the training time on a CPU.

Integers and gradients are those of `espalier.quantized.cell`, which stays the definition; a test
holds them equal. Without a C compiler nothing changes but the time.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espalier.quantized import cell as plain
from espalier.quantized import gru, weights
from espalier.quantized.arithmetic import STATE_SCALE, _table, product_dtype
from espalier.quantized.learned import SCALE_MIN
from espalier.spec import numerics

SOURCE = Path(__file__).with_name("fused.c")
OPTIONS = (
    "-O3", "-march=native", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno",
    "-fno-trapping-math", "-fopenmp-simd",
)  # fmt: skip


def install(folder: Path) -> bool:
    """Let all GRU cells of this process compute by C loops built in `folder`; whether they do."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return False
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = folder / f"fused-{name}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, *OPTIONS, str(SOURCE), "-o", str(path), "-lm"], check=True)
    loops = _Loops(ctypes.CDLL(str(path)))
    plain.integer_states, plain._through_time = loops.integer_states, loops.through_time
    gru.row_scales = loops.row_scales
    return True


class _Loops:
    """`cell.integer_states` and `cell._through_time` by the library's functions."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.states, self.gradients = plain.integer_states, plain._through_time

    def integer_states(
        self, cell: Any, total_i: Tensor, h: Tensor, trace: Any, states: Tensor
    ) -> None:
        single = product_dtype(cell.weight_hh) == total_i.dtype == states.dtype == torch.float32
        if not single or states.device.type != "cpu":
            return self.states(cell, total_i, h, trace, states)
        weight, total_i = cell.weight_hh.T.contiguous(), total_i.contiguous()
        state = torch.round(h.double() / STATE_SCALE).contiguous()
        columns = plain.state_columns(state).float()
        trace = plain._Trace.like(states[:1]) if trace is None else trace
        sent, rows = torch.zeros_like(columns), [*_rows(cell)]
        for t, total in enumerate(total_i):
            if cell.hidden_threshold:
                held = (columns - sent).abs() <= cell.hidden_threshold
                columns = sent = torch.where(held, sent, columns)
            at = min(t, len(trace.gates) - 1)
            trace.columns[at] = columns
            following = torch.empty_like(columns)
            gates, new, new_hidden = (part[at] for part in trace[:3])
            outputs = state, gates, new, new_hidden, states[t], following
            self._call("forward", state.shape, total, columns @ weight, *rows, *outputs)
            columns = following

    def through_time(
        self, gradient: Tensor, real_weight: Tensor, trace: Any, h0: Tensor, states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not all(x.dtype == torch.float32 for x in (gradient, real_weight, h0, states)):
            return self.gradients(gradient, real_weight, trace, h0, states)
        gradient, h0 = gradient.contiguous(), h0.contiguous()
        hidden = gradient.new_empty((*gradient.shape[:2], 3 * gradient.shape[2]))
        new, back, carried = torch.empty_like(gradient), torch.zeros_like(h0), torch.empty_like(h0)
        unit = ctypes.c_float(numerics.TANH_INPUT_SCALE)
        for t in range(len(gradient) - 1, -1, -1):
            before = states[t - 1] if t else h0
            inputs = trace.gates[t], trace.new[t], trace.new_hidden[t], before, gradient[t], back
            self._call("backward", h0.shape, *inputs, unit, new[t], hidden[t], carried)
            back = torch.addmm(carried, hidden[t], real_weight)
        return new, hidden, back

    def row_scales(
        self,
        weight: Tensor,
        levels: Tensor,
        limit: float,
        search: str = "error",
        moment: Tensor | None = None,
    ) -> Tensor:
        if search != "error" or weight.dtype != torch.float32 or weight.device.type != "cpu":
            return weights.row_scales(weight, levels, limit, search, moment)
        weight, ratios = weight.detach().contiguous(), torch.tensor(weights.CLIPPING_RATIOS)
        bounds = ctypes.c_float(SCALE_MIN), ctypes.c_float(limit)
        scratch, scales = torch.empty(2, weight.shape[1]), torch.empty(len(weight))
        sizes = ratios, ctypes.c_int64(len(ratios)), *bounds
        self._call("row_scales", weight.shape, weight, levels.float(), *sizes, *scratch, scales)
        return scales

    def _call(self, name: str, shape: torch.Size, *values: Any) -> None:
        pointers = (ctypes.c_void_p(v.data_ptr()) if isinstance(v, Tensor) else v for v in values)
        getattr(self.library, name)(*map(ctypes.c_int64, shape), *pointers)


def _rows(cell: Any) -> list[Tensor]:
    """Factors and offsets of gates, u and v, and both tables, all float64."""
    parts = cell.gates, cell.new_hidden, cell.new_input
    rows = [each.contiguous() for part in parts for each in (part.factor, part.offset)]
    device = rows[0].device
    return [*rows, _table("sigmoid", device), _table("tanh", device)]
