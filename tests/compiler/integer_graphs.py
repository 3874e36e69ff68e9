"""Graphs of random integers, and programs of them on the reference machine beside `evaluate`."""

from dataclasses import replace

import numpy as np

from espalier.compiler.backend import build
from espalier.compiler.evaluate import evaluate
from espalier.compiler.ir import Graph, Gru, Input, Last, Linear, Output, Value, View
from espalier.parameters import GruCellParameters, LinearParameters, Matrix, Rows
from espalier.runtime import Session
from espalier.runtime.driver import Driver
from espalier.spec import numerics
from espalier.spec.config import TINY
from espalier_sim.reference.device import ReferenceTransport

STATE = numerics.GATE_SCALE
DEEP = replace(
    TINY,
    name="DEEP",
    weight_depth=1 << 14,
    column_depth=1024,
    descriptor_depth=1024,
    vector_depth=512,
    parameter_depth=512,
    sum_depth=512,
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
    return Rows(
        multiplier=pairs[:, 0], shift=pairs[:, 1], bias=random.integers(-60000, 60000, count)
    )


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
    shape = tuple(
        array.shape[0]
        if axis == operation.time_axis
        else 1
        if axis == operation.batch_axis
        else size
        for axis, size in enumerate(operation.shape)
    )
    return array.reshape(shape)


class Bench:
    """A program of a graph on the reference machine."""

    def __init__(self, graph, config):
        self.graph, self.config = graph, config
        self.program = build(graph, config, {"origin": "test"})
        self.inputs = [o for o in graph.operations if isinstance(o, Input)]
        window = len(self.program.image) + (1 << 22)
        self.session = Session(
            Driver(ReferenceTransport(config, window), self.program), self.program
        )

    def run(self, values):
        given = [
            tensor(o, values[o.output.name]) if o.output.name in values else None
            for o in self.inputs
        ]
        results = self.session.run_integers(*given)
        results = results if isinstance(results, tuple) else (results,)
        return {o.name: r for o, r in zip(self.graph.outputs, results, strict=True)}

    def check(self, values):
        expected = evaluate(self.graph, values)
        for name, result in self.run(values).items():
            np.testing.assert_array_equal(
                result.reshape(expected[name].shape), expected[name], name
            )
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


def gru_graph(random, inputs, hidden, layers=1, **options):
    x, source = steps_input("x", inputs)
    cells = tuple(
        (cell(random, inputs if layer == 0 else hidden, hidden, **options),)
        for layer in range(layers)
    )
    output = Value("output", hidden, STATE, True)
    final = tuple(Value(f"h{i}", hidden, STATE, False) for i in range(layers))
    graph = Graph([source, Gru(View.of(x), (None,) * layers, cells, output, final)])
    graph.outputs = [steps_output("output", View.of(output))]
    return graph


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
    graph = Graph(
        [
            source,
            Input(h0, False, (2 * layers, -1, hidden), 1, None, optional=True),
            Gru(View.of(x), initial, cells, output, final),
            Linear(joined(View.of(output), part(x, 0, 2)), head, linear(random, 2 * hidden + 2, 5)),
            Last(View.of(output), last),
            Last(View.of(x), seen),
            Linear(everything, summary, linear(random, len(everything), 6)),
        ],
        [
            steps_output("output", View.of(output)),
            steps_output("head", View.of(head)),
            once_output("summary", View.of(summary)),
            once_output("last", View.of(last)),
        ],
    )
    return graph
