"""Programs of hand-made graphs on the reference machine, integer for integer equal to `evaluate`."""

from dataclasses import replace

import numpy as np
import pytest

from espalier.compiler.backend import build
from espalier.compiler.evaluate import evaluate
from espalier.compiler.ir import Activation, Graph, Gru, Input, Last, Linear, Output, Value, View
from espalier.parameters import GruCellParameters, LinearParameters, Matrix, Rows
from espalier.runtime import Session
from espalier.runtime.driver import Driver
from espalier.spec import numerics
from espalier.spec.config import DE1_SOC, SMALL, TINY
from espalier_sim.reference.device import ReferenceTransport

STATE = numerics.GATE_SCALE
DEEP = replace(
    TINY, name="DEEP", weight_depth=1 << 14, column_depth=1024, descriptor_depth=1024, vector_depth=512,
    parameter_depth=512, sum_depth=512,
)
"""TINY's lanes with memories for what does not fit TINY."""


def matrix(random, rows, columns, bits=4, density=1.0):
    level = numerics.WEIGHT_LEVELS[bits]
    weight = random.integers(-level, level + 1, (rows, columns))
    weight[random.random(weight.shape) >= density] = 0
    weight[0, 0] = level
    return Matrix(weight=weight.astype(np.int16), bit_width=bits)


def row_parameters(random, count, columns, bits, density=1.0, gain=1.0):
    """Scales that bring sums to about half of the value range, with biases."""
    spread = 64 * numerics.WEIGHT_LEVELS[bits] * max(columns * density, 1) ** 0.5
    scales = gain * random.uniform(0.5, 1.5, count) * 12000 / spread
    pairs = np.array([numerics.row_scale(min(scale, 1000)) for scale in scales], np.int64)
    return Rows(multiplier=pairs[:, 0], shift=pairs[:, 1], bias=random.integers(-60000, 60000, count))


def cell(random, inputs, hidden, *, bits=(4, 4), density=1.0, scale=2.0**-7, **options):
    return GruCellParameters(
        weight_ih=matrix(random, 3 * hidden, inputs, bits[0], density),
        weight_hh=matrix(random, 3 * hidden, hidden, bits[1], density),
        gates=row_parameters(random, 2 * hidden, inputs + hidden, max(bits), density),
        new_input=row_parameters(random, hidden, inputs, bits[0], density),
        new_hidden=row_parameters(random, hidden, hidden, bits[1], density),
        input_scale=scale,
        **options,
    )


def linear(random, columns, rows, *, bits=4, density=1.0, scale=2.0**-7, output_scale=2.0**-12):
    return LinearParameters(
        matrix=matrix(random, rows, columns, bits, density),
        rows=row_parameters(random, rows, columns, bits, density),
        input_scale=scale,
        output_scale=output_scale,
    )


def steps_input(name, elements, columns=True, scale=STATE):
    value = Value(name, elements, scale, True)
    return value, Input(value, columns, (-1, -1, elements), 0, 1)


def steps_output(name, view):
    return Output(name, view, (-1, -1, len(view)), 0, 1)


def once_output(name, view):
    return Output(name, view, (-1, len(view)), 0, None)


def part(value, start, stop):
    return View((value,), np.zeros(stop - start, np.int64), np.arange(start, stop))


def joined(*views):
    starts = np.cumsum([0, *(len(view.values) for view in views)])
    return View(
        tuple(v for view in views for v in view.values),
        np.concatenate([view.owners + at for view, at in zip(views, starts, strict=False)]),
        np.concatenate([view.indices for view in views]),
    )


def random_inputs(random, graph, steps):
    values = {}
    for operation in graph.operations:
        if isinstance(operation, Input):
            value, limit = operation.output, 127 if operation.columns else 32767
            shape = (steps, value.elements) if value.per_step else (value.elements,)
            values[value.name] = random.integers(-limit, limit + 1, shape)
    return values


def tensor(operation, array):
    """[T, F] or [F] in the shape of the user's tensor, batch 1."""
    shape = tuple(array.shape[0] if axis == operation.time_axis else 1 if axis == operation.batch_axis else size
                  for axis, size in enumerate(operation.shape))
    return array.reshape(shape)


class Bench:
    """A program of a graph on the reference machine."""

    def __init__(self, graph, config):
        self.graph, self.config = graph, config
        self.program = build(graph, config, {"origin": "test"})
        self.inputs = [o for o in graph.operations if isinstance(o, Input)]
        self.session = Session(Driver(ReferenceTransport(config, 1 << 22), self.program), self.program)

    def run(self, values):
        given = [tensor(o, values[o.output.name]) if o.output.name in values else None for o in self.inputs]
        results = self.session.run_integers(*given)
        results = results if isinstance(results, tuple) else (results,)
        return {o.name: r for o, r in zip(self.graph.outputs, results, strict=True)}

    def check(self, values):
        expected = evaluate(self.graph, values)
        for name, result in self.run(values).items():
            np.testing.assert_array_equal(result.reshape(expected[name].shape), expected[name], name)
            assert len(np.unique(expected[name])) > 3, "the case shows nothing"


def check(graph, config, steps=5, seed=1):
    bench = Bench(graph, config)
    bench.check(random_inputs(np.random.default_rng(seed), graph, steps))
    return bench


def linear_graph(random, columns, rows, **options):
    x, source = steps_input("x", columns)
    y = Value("y", rows, 2.0**-12, True)
    return Graph(
        [source, Linear(View.of(x), y, linear(random, columns, rows, **options))],
        [steps_output("y", View.of(y))],
    )


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda c: c.name)
@pytest.mark.parametrize(("columns", "rows", "bits", "density"), [
    (4, 4, 4, 1.0), (1, 1, 4, 1.0), (13, 37, 4, 0.4), (30, 21, 8, 0.7), (40, 9, 8, 1.0),
])
def test_linear(config, columns, rows, bits, density):
    random = np.random.default_rng(columns * rows)
    check(linear_graph(random, columns, rows, bits=bits, density=density), config)


def test_linear_in_row_blocks():
    random = np.random.default_rng(3)
    bench = check(linear_graph(random, 6, 300, bits=8, density=0.15), TINY)
    assert sum(i.opcode.name == "PRODUCT" for i in bench.program.decode()) > 2


def gru_graph(random, inputs, hidden, layers=1, **options):
    x, source = steps_input("x", inputs)
    cells = tuple(
        (cell(random, inputs if layer == 0 else hidden, hidden, **options),) for layer in range(layers)
    )
    output = Value("output", hidden, STATE, True)
    final = tuple(Value(f"h{i}", hidden, STATE, False) for i in range(layers))
    graph = Graph([source, Gru(View.of(x), (None,) * layers, cells, output, final)])
    graph.outputs = [steps_output("output", View.of(output))]
    return graph


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda c: c.name)
@pytest.mark.parametrize(("inputs", "hidden", "bits", "options"), [
    (5, 6, (4, 4), {}),
    (7, 13, (8, 4), {"delta": False}),
    (3, 9, (4, 8), {"input_threshold": 9, "hidden_threshold": 3}),
])
def test_gru(config, inputs, hidden, bits, options):
    random = np.random.default_rng(inputs)
    check(gru_graph(random, inputs, hidden, bits=bits, **options), config, steps=8)


def test_gru_state_in_blocks_of_units():
    """More rows than slots: new columns are written after the last product of the step."""
    random = np.random.default_rng(4)
    for options in ({"bits": (8, 8)}, {"bits": (8, 4), "delta": False}):
        bench = check(gru_graph(random, 5, 90, density=0.1, **options), DEEP)
        products = [i for i in bench.program.decode() if i.opcode.name == "PRODUCT"]
        assert len(products) > 1 + 6 and {p["mode"] for p in products} <= {0, 1, 2, 3}


def test_columns_split_where_accumulators_would_overflow():
    random = np.random.default_rng(5)
    for delta in (False, True):
        graph = gru_graph(random, 1800, 8, delta=delta, bits=(4, 4), density=0.9)
        graph.operations[1].cells[0][0].weight_ih.weight[:, ::2] = 7
        bench = check(graph, DEEP, steps=3)
        assert sum(i.opcode.name == "VECTOR" and i["sums"] > 0 for i in bench.program.decode()) > 4


def test_chunks_equal_one_run():
    random = np.random.default_rng(6)
    for threshold in (0, 20):
        graph = gru_graph(random, 9, 11, layers=2, input_threshold=threshold, hidden_threshold=threshold)
        bench = Bench(graph, TINY)
        values = random_inputs(random, graph, 9)
        whole = bench.run(values)["output"]
        bench.session.reset()
        given = values["x"] * 2.0**-7
        steps = [bench.session.step(given[None, a:b].astype(np.float32)) for a, b in ((0, 1), (1, 5), (5, 9))]
        np.testing.assert_array_equal(np.concatenate(steps, 1), whole * STATE)


def test_layers_initial_states_heads_and_views():
    """Two layers with given states, per-step and final heads over views, all activations, three outputs."""
    random = np.random.default_rng(7)
    x, source = steps_input("x", 10)
    h0 = Value("h0", 2 * 11, STATE, False)
    output = Value("output", 11, STATE, True)
    final = tuple(Value(f"h{i}", 11, STATE, False) for i in range(2))
    cells = ((cell(random, 6, 11),), (cell(random, 11, 11),))
    hidden, squashed = Value("hidden", 7, 2.0**-11, True), Value("squashed", 7, STATE, True)
    gate, relu = Value("gate", 11, STATE, True), Value("relu", 7, 2.0**-11, True)
    head, last, last_head = Value("head", 5, 2.0**-12, True), Value("last", 11, STATE, False), Value("lh", 4, 2.0**-9, False)
    view = joined(part(squashed, 2, 7), View.of(gate), part(x, 3, 5))
    graph = Graph([
        source,
        Input(h0, False, (2, -1, 11), 1, None, optional=True),
        Gru(part(x, 4, 10), (part(h0, 0, 11), part(h0, 11, 22)), cells, output, final),
        Linear(View.of(output), hidden, linear(random, 11, 7, bits=8, output_scale=2.0**-11)),
        Activation("tanh", View.of(hidden), squashed),
        Activation("relu", View.of(hidden), relu),
        Activation("sigmoid", View.of(output), gate),
        Linear(view, head, linear(random, 18, 5)),
        Last(View.of(output), last),
        Linear(joined(View.of(last), View.of(final[0])), last_head, linear(random, 22, 4, output_scale=2.0**-9)),
    ], [
        steps_output("head", View.of(head)),
        steps_output("mixed", joined(part(relu, 1, 6), part(output, 0, 3))),
        once_output("last", View.of(last_head)),
        Output("h_n", joined(View.of(final[0]), View.of(final[1])), (2, -1, 11), 1, None),
    ])
    for config in (DEEP, SMALL):
        bench = check(graph, config)
        values = random_inputs(random, graph, 4)
        del values["h0"]
        bench.check(values)


def test_values_of_another_scale_are_rescaled():
    random = np.random.default_rng(8)
    x, source = steps_input("x", 6, columns=False, scale=2.0**-10)
    y, z = Value("y", 8, 2.0**-12, True), Value("z", 5, 2.0**-11, True)
    graph = Graph([
        source,
        Linear(View.of(x), y, linear(random, 6, 8, scale=2.0**-3)),
        Linear(joined(View.of(y), part(x, 0, 3)), z, linear(random, 11, 5, scale=2.0**-3, output_scale=2.0**-11)),
    ], [steps_output("z", joined(View.of(z), View.of(y)))])
    check(graph, TINY)


def test_a_model_without_time():
    random = np.random.default_rng(9)
    x = Value("x", 9, STATE, False)
    y, z = Value("y", 8, STATE, False), Value("z", 5, STATE, False)
    graph = Graph([
        Input(x, True, (-1, 9), 0, None),
        Linear(View.of(x), y, linear(random, 9, 8, output_scale=STATE)),
        Linear(View.of(y), z, linear(random, 8, 5, output_scale=STATE)),
    ], [once_output("z", View.of(z))])
    check(graph, TINY)


def bidirectional_graph(random, inputs, hidden, layers, **options):
    x, source = steps_input("x", inputs)
    h0 = Value("h0", 2 * layers * hidden, STATE, False)
    sizes = [inputs, *[2 * hidden] * (layers - 1)]
    cells = tuple(tuple(cell(random, size, hidden, **options) for _ in range(2)) for size in sizes)
    output = Value("output", 2 * hidden, STATE, True)
    final = tuple(Value(f"h{i}", hidden, STATE, False) for i in range(2 * layers))
    initial = tuple(part(h0, i * hidden, (i + 1) * hidden) for i in range(2 * layers))
    head, last = Value("head", 5, 2.0**-12, True), Value("last", 2 * hidden, STATE, False)
    seen, summary = Value("seen", inputs, STATE, False), Value("summary", 6, 2.0**-12, False)
    everything = joined(View.of(last), View.of(seen), *(View.of(value) for value in final))
    graph = Graph([
        source,
        Input(h0, False, (2 * layers, -1, hidden), 1, None, optional=True),
        Gru(View.of(x), initial, cells, output, final),
        Linear(joined(View.of(output), part(x, 0, 2)), head, linear(random, 2 * hidden + 2, 5)),
        Last(View.of(output), last),
        Last(View.of(x), seen),
        Linear(everything, summary, linear(random, len(everything), 6)),
    ], [
        steps_output("output", View.of(output)),
        steps_output("head", View.of(head)),
        once_output("summary", View.of(summary)),
        once_output("last", View.of(last)),
    ])
    return graph


@pytest.mark.parametrize(("layers", "options"), [
    (1, {}), (2, {"input_threshold": 5, "hidden_threshold": 2}), (2, {"delta": False, "bits": (8, 8)}),
])
def test_bidirectional(layers, options):
    random = np.random.default_rng(layers)
    graph = bidirectional_graph(random, 5, 7, layers, **options)
    for config in (DEEP, SMALL):
        bench = Bench(graph, config)
        assert bench.program.whole_sequence and bench.program.notes["residency"] == "resident"
        for steps in (1, 6):
            values = random_inputs(random, graph, steps)
            bench.check(values)
            del values["h0"]
            bench.check(values)


def test_weights_loaded_stage_by_stage():
    """Each layer fits TINY, all together do not; chunks still equal one run."""
    random = np.random.default_rng(11)
    graph = gru_graph(random, 12, 14, layers=3)
    y = Value("y", 20, 2.0**-12, True)
    graph.operations.append(Linear(View.of(graph.operations[1].output), y, linear(random, 14, 20)))
    graph.outputs.append(steps_output("y", View.of(y)))
    bench = check(graph, TINY)
    assert bench.program.notes["residency"] == "loaded every run" and not bench.program.whole_sequence
    check(bidirectional_graph(random, 6, 14, 1), TINY)


def test_streamed_layers():
    """One layer larger than the chip, at every kind of threshold; a streamed linear layer behind it."""
    random = np.random.default_rng(12)
    for options in ({}, {"input_threshold": 4, "hidden_threshold": 2}, {"bits": (8, 8), "delta": False}):
        graph = gru_graph(random, 30, 40, density=0.8, **options)
        y = Value("y", 60, 2.0**-12, True)
        graph.operations.append(Linear(View.of(graph.operations[1].output), y, linear(random, 40, 60, bits=8)))
        graph.outputs.append(steps_output("y", View.of(y)))
        bench = check(graph, replace(DEEP, weight_depth=256, descriptor_depth=64))
        assert bench.program.notes["residency"] == "streamed"
