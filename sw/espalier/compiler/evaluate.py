"""What a `Graph` means: a NumPy interpreter of the intermediate form, one function per operation.

It works on whole sequences of one sample, with the arithmetic of `espalier.spec.numerics` and
nothing else, and is the oracle for whatever turns a graph into instructions. A per-step value is
int64 [T, elements], any other [elements].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from ..parameters import GruCellParameters, Matrix, Rows
from ..spec import numerics
from .ir import Activation, Graph, Gru, Input, Last, Linear, Value, View

Values = dict[Value, np.ndarray]


def evaluate(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run `graph` on integers.

    `inputs[name]` is [T, elements] or, for an input without time, [elements]: column inputs
    (-127..127) where `Input.columns`, else 16-bit values; an absent optional input is zeros.
    Returns for every output the 16-bit values of its view, [T, features] or [features], in units
    of `view.scale`. Raises InputError for a missing or misshapen input.
    """
    values: Values = {}
    for operation in graph.operations:
        match operation:
            case Input():
                values[operation.output] = read_input(operation, inputs)
            case Linear():
                values[operation.output] = linear(operation, values)
            case Gru():
                gru(operation, values)
            case Activation():
                values[operation.output] = activation(operation, values)
            case Last():
                values[operation.output] = gather(operation.input, values, operation.output.scale)[
                    -1
                ]
    return {output.name: gather(output.view, values, output.view.scale) for output in graph.outputs}


def read_input(operation: Input, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The input as values: a column input x8 stands for the value 256·x8."""
    value = operation.output
    if value.name not in inputs and operation.optional:
        return np.zeros(value.elements, np.int64)
    if value.name not in inputs:
        raise InputError(f"input {value.name!r} is missing")
    given = np.asarray(inputs[value.name], np.int64)
    if given.ndim != 1 + value.per_step or given.shape[-1] != value.elements:
        shape = ("T", value.elements) if value.per_step else (value.elements,)
        raise InputError(f"input {value.name!r} must have the shape {shape}, not {given.shape}")
    return given << numerics.COLUMN_SHIFT if operation.columns else given


def linear(operation: Linear, values: Values) -> np.ndarray:
    """y16 = sat16(scale_sum(W·x8, rows))."""
    p = operation.parameters
    return requantize(columns(operation.input, values, p.input_scale) @ matrix(p.matrix), p.rows)


def gru(operation: Gru, values: Values) -> None:
    """All layers and directions; the next layer takes both directions' outputs, forward first."""
    scale = operation.cells[0][0].input_scale / 256
    x16 = gather(operation.input, values, scale)
    for layer, cells in enumerate(operation.cells):
        outputs = []
        for direction, cell in enumerate(cells):
            index = layer * len(cells) + direction
            x8 = to_columns(rescale(x16, scale, cell.input_scale / 256))
            initial = operation.initial[index]
            h = np.zeros(cell.hidden_size, np.int64)
            if initial is not None:
                h = gather(initial, values, numerics.GATE_SCALE)
            states = gru_direction(cell, x8[::-1] if direction else x8, h)
            values[operation.final[index]] = states[-1]
            outputs.append(states[::-1] if direction else states)
        x16, scale = np.concatenate(outputs, axis=1), numerics.GATE_SCALE
    values[operation.output] = x16


def gru_direction(cell: GruCellParameters, x8: np.ndarray, h: np.ndarray) -> np.ndarray:
    """States [T, H] after each step of x8 [T, I], from state h [H]: see GruCellParameters."""
    hidden = cell.hidden_size
    weight_ih, weight_hh = matrix(cell.weight_ih), matrix(cell.weight_hh)
    x_sent, h_sent = np.zeros(cell.input_size, np.int64), np.zeros(hidden, np.int64)
    states = []
    for x in x8:
        x_sent = hold(x_sent, x, cell.input_threshold)
        h_sent = hold(h_sent, to_columns(h), cell.hidden_threshold)
        from_x, from_h = x_sent @ weight_ih, h_sent @ weight_hh
        gates = requantize(from_x[: 2 * hidden] + from_h[: 2 * hidden], cell.gates)
        r, z = np.split(table("sigmoid", gates), 2)
        u = requantize(from_h[2 * hidden :], cell.new_hidden)
        v = requantize(from_x[2 * hidden :], cell.new_input)
        n = table("tanh", saturate(v + saturate(numerics.multiply_values(u, r))))
        h = saturate(numerics.interpolate(n, z, h))
        states.append(h)
    return np.stack(states)


def activation(operation: Activation, values: Values) -> np.ndarray:
    if operation.kind == "relu":
        return np.maximum(gather(operation.input, values, operation.output.scale), 0)
    _, input_scale, _ = numerics.FUNCTIONS[operation.kind]
    return table(operation.kind, gather(operation.input, values, input_scale))


def gather(view: View, values: Values, scale: float) -> np.ndarray:
    """The view's features as 16-bit values of `scale`, [T, features] or [features].

    A value without time repeats beside ones with time.
    """
    parts = [rescale(values[value], value.scale, scale) for value in view.values]
    steps = max((len(part) for part in parts if part.ndim == 2), default=None)
    shape = (len(view),) if steps is None else (steps, len(view))
    result = np.empty(shape, np.int64)
    for number, part in enumerate(parts):
        chosen = view.owners == number
        result[..., chosen] = part[..., view.indices[chosen]]
    return result


def columns(view: View, values: Values, input_scale: float) -> np.ndarray:
    """The view's features as column inputs of `input_scale`."""
    return to_columns(gather(view, values, input_scale / 256))


def rescale(value: np.ndarray, scale: float, wanted: float) -> np.ndarray:
    """16-bit values of one scale in units of another; the row scale of 1 changes nothing."""
    if scale == wanted:
        return value
    return saturate(numerics.scale_sum(value, *numerics.row_scale(scale / wanted), 0))


def requantize(total: np.ndarray, rows: Rows) -> np.ndarray:
    return saturate(numerics.scale_sum(total, rows.multiplier, rows.shift, rows.bias))


def table(kind: str, value: np.ndarray) -> np.ndarray:
    """The piecewise-linear function called `kind`."""
    base, slope = np.array(numerics.make_table(*numerics.FUNCTIONS[kind]), np.int64).T
    segment = numerics.table_segment(value)
    return saturate(numerics.table_value(value, base[segment], slope[segment]))


def hold(sent: np.ndarray, new: np.ndarray, threshold: int) -> np.ndarray:
    """The columns as the engine knows them: last-sent values stay while the change is small."""
    return np.where(np.abs(new - sent) > threshold, new, sent)


def to_columns(value: np.ndarray) -> np.ndarray:
    return np.clip(numerics.column_input(value), numerics.COLUMN_MIN, numerics.COLUMN_MAX)


def saturate(value: np.ndarray) -> np.ndarray:
    return np.clip(value, numerics.VALUE_MIN, numerics.VALUE_MAX)


def matrix(weights: Matrix) -> np.ndarray:
    """Weights as int64 [columns, rows], so that x @ matrix is W·x."""
    return weights.weight.astype(np.int64).T
