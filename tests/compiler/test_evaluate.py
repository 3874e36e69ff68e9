"""The interpreter of the intermediate form against hand-computed integers and torch.nn.GRU."""

import numpy as np
import pytest
import torch

from espalier.compiler.evaluate import evaluate, hold, rescale
from espalier.compiler.ir import Activation, Graph, Gru, Input, Last, Linear, Output, Value, View
from espalier.errors import InputError
from espalier.parameters import GruCellParameters, LinearParameters, Matrix, Rows
from espalier.spec import numerics

STATE = numerics.GATE_SCALE


def rows(scale, bias, unit):
    pairs = np.array([numerics.row_scale(s / unit) for s in scale], np.int64)
    biases = np.array([numerics.row_bias(b, unit) for b in bias], np.int64)
    return Rows(multiplier=pairs[:, 0], shift=pairs[:, 1], bias=biases)


def cell(w_ih, w_hh, b_ih, b_hh, input_scale, **options):
    """Cell parameters of integer weights whose unit is 1/64."""
    n = 2 * w_hh.shape[1]
    input_unit, hidden_unit, h = input_scale / 64, 2.0**-7 / 64, w_hh.shape[1]
    assert input_unit == hidden_unit, "the gates add both sums"
    return GruCellParameters(
        weight_ih=Matrix(weight=w_ih.astype(np.int16), bit_width=8),
        weight_hh=Matrix(weight=w_hh.astype(np.int16), bit_width=8),
        gates=rows([input_unit] * n, b_ih[:n] + b_hh[:n], numerics.SIGMOID_INPUT_SCALE),
        new_input=rows([input_unit] * h, b_ih[n:], numerics.TANH_INPUT_SCALE),
        new_hidden=rows([hidden_unit] * h, b_hh[n:], numerics.TANH_INPUT_SCALE),
        input_scale=input_scale,
        **options,
    )


def gru_pair(layers, bidirectional, inputs=5, hidden=6, seed=0, **options):
    """torch.nn.GRU with weights that are multiples of 1/64, and the same cells as integers."""
    random = np.random.default_rng(seed)
    directions = 2 if bidirectional else 1
    model = torch.nn.GRU(inputs, hidden, layers, bidirectional=bidirectional)
    cells = []
    for layer in range(layers):
        row = []
        for direction in range(directions):
            n = inputs if layer == 0 else directions * hidden
            w_ih, w_hh = (
                random.integers(-60, 61, (3 * hidden, n)),
                random.integers(-60, 61, (3 * hidden, hidden)),
            )
            b_ih, b_hh = random.uniform(-1, 1, 3 * hidden), random.uniform(-1, 1, 3 * hidden)
            suffix = f"l{layer}" + "_reverse" * direction
            for name, array in (
                ("weight_ih", w_ih / 64),
                ("weight_hh", w_hh / 64),
                ("bias_ih", b_ih),
                ("bias_hh", b_hh),
            ):
                getattr(model, f"{name}_{suffix}").data = torch.tensor(array, dtype=torch.float32)
            row.append(cell(w_ih, w_hh, b_ih, b_hh, 2.0**-7, **options))
        cells.append(tuple(row))
    return model.eval(), tuple(cells)


def gru_graph(cells, inputs, with_initial=False):
    hidden, count = cells[0][0].hidden_size, len(cells) * len(cells[0])
    x = Value("x", inputs, STATE, True)
    h0 = Value("h0", hidden * count, STATE, False)
    output = Value("output", hidden * len(cells[0]), STATE, True)
    final = tuple(Value(f"h{i}", hidden, STATE, False) for i in range(count))
    initial = tuple(
        View((h0,), np.zeros(hidden, np.int64), np.arange(hidden) + i * hidden)
        if with_initial
        else None
        for i in range(count)
    )
    graph = Graph([Input(x, True, (-1, -1, inputs), 1, 0)])
    if with_initial:
        graph.operations.append(Input(h0, False, (count, -1, hidden), 1, None, optional=True))
    graph.operations.append(Gru(View.of(x), initial, cells, output, final))
    graph.outputs.append(Output("y", View.of(output), (-1, -1, len(View.of(output))), 1, 0))
    state = View(final, np.repeat(np.arange(count), hidden), np.tile(np.arange(hidden), count))
    graph.outputs.append(Output("h_n", state, (count, -1, hidden), 1, None))
    return graph


@pytest.mark.parametrize("layers,bidirectional", [(1, False), (2, False), (1, True), (2, True)])
def test_gru_means_what_torch_means(layers, bidirectional):
    """Biases and initial states are large: a misplaced b_hn, gate or direction exceeds the bound.

    The bound is what 8-bit states and 16-bit gates leave after 12 steps; a wrong equation is off by
    0.1 and more."""
    model, cells = gru_pair(layers, bidirectional)
    random = np.random.default_rng(1)
    x8 = random.integers(-127, 128, (12, 5))
    h0 = random.integers(-30000, 30000, (len(cells) * len(cells[0]), 6))
    found = evaluate(gru_graph(cells, 5, True), {"x": x8, "h0": h0.ravel()})
    with torch.no_grad():
        y, h_n = model(
            torch.tensor(x8 / 128, dtype=torch.float32),
            torch.tensor(h0 / 2**15, dtype=torch.float32),
        )
    assert np.abs(found["y"] * STATE - y.numpy()).max() < 0.02
    assert np.abs(found["h_n"] * STATE - h_n.numpy().ravel()).max() < 0.02


def test_absent_initial_state_is_zero():
    _, cells = gru_pair(1, False)
    x8 = np.random.default_rng(2).integers(-127, 128, (4, 5))
    with_state, without = gru_graph(cells, 5, True), gru_graph(cells, 5, False)
    zeros = evaluate(with_state, {"x": x8, "h0": np.zeros(6, int)})["y"]
    assert np.array_equal(evaluate(with_state, {"x": x8})["y"], zeros)
    assert np.array_equal(evaluate(without, {"x": x8})["y"], zeros)


def test_thresholds_hold_columns_back():
    assert hold(np.array([0, 5, -9]), np.array([3, 9, -127]), 3).tolist() == [0, 9, -127]
    assert hold(np.array([7, -7]), np.array([8, -7]), 0).tolist() == [8, -7]
    _, plain = gru_pair(1, False)
    _, coarse = gru_pair(1, False, input_threshold=4, hidden_threshold=4)
    still = np.tile(np.random.default_rng(3).integers(-127, 128, 5), (6, 1))
    jitter = still.copy()
    jitter[1:] = np.clip(
        still[1:] + np.random.default_rng(4).integers(-2, 3, still[1:].shape), -127, 127
    )
    first = evaluate(gru_graph(coarse, 5), {"x": still})["y"]
    assert np.array_equal(evaluate(gru_graph(coarse, 5), {"x": jitter})["y"], first)
    assert not np.array_equal(evaluate(gru_graph(plain, 5), {"x": jitter})["y"], first)


def test_linear_by_hand():
    """Sum 2·3 - 1·100 = -94, in sixteenths (row scale 2^-4) plus a bias of 8: -86/16 -> -5."""
    x, y = Value("x", 2, 2.0**-15, False), Value("y", 1, 1.0, False)
    parameters = LinearParameters(
        matrix=Matrix(weight=np.array([[2, -1]], np.int16), bit_width=4),
        rows=Rows(multiplier=np.array([1 << 10]), shift=np.array([14]), bias=np.array([8])),
        input_scale=2.0**-7,
        output_scale=1.0,
    )
    graph = Graph(
        [Input(x, True, (-1, 2), 0, None), Linear(View.of(x), y, parameters)],
        [Output("y", View.of(y), (-1, 1), 0, None)],
    )
    assert evaluate(graph, {"x": np.array([3, 100])})["y"].tolist() == [-5]


def test_views_activations_and_last():
    a, b = Value("a", 2, 2.0**-12, True), Value("b", 1, 2.0**-14, False)
    s, t = Value("s", 2, STATE, True), Value("t", 2, 2.0**-12, True)
    view = View((a, b), np.array([0, 1]), np.array([1, 0]))
    last = Value("last", 2, view.scale, False)
    graph = Graph(
        [
            Input(a, False, (-1, 2), None, 0),
            Input(b, False, (1,), None, None),
            Activation("sigmoid", View.of(a), s),
            Activation("relu", View.of(a), t),
            Last(view, last),
        ],
        [
            Output("s", View.of(s), (-1, 2), None, 0),
            Output("t", View.of(t), (-1, 2), None, 0),
            Output("last", View.of(last), (2,), None, None),
        ],
    )
    out = evaluate(graph, {"a": np.array([[0, -4096], [4096, 8]]), "b": np.array([6])})
    sigmoid = 1 / (1 + np.exp(-np.array([[0, -1], [1, 8 / 4096]])))
    assert np.abs(out["s"] * STATE - sigmoid).max() < 3e-4
    assert out["t"].tolist() == [[0, 0], [4096, 8]]
    assert out["last"].tolist() == [8, 2], "b is rescaled from 2^-14 to 2^-12: 6/4 rounds up"


def test_rescale_rounds_half_up_and_saturates():
    assert rescale(np.array([3, -3, 30000]), 1.0, 2.0).tolist() == [2, -1, 15000]
    assert rescale(np.array([30000, -30000]), 2.0, 1.0).tolist() == [32767, -32768]


@pytest.mark.parametrize("given", [{}, {"x": np.zeros(5)}, {"x": np.zeros((3, 4))}])
def test_wrong_inputs_are_refused(given):
    _, cells = gru_pair(1, False)
    with pytest.raises(InputError, match="input 'x'"):
        evaluate(gru_graph(cells, 5), given)
