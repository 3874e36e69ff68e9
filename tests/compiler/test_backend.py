"""Programs of hand-made graphs on the reference machine, integer for integer as `evaluate`."""

from dataclasses import replace

import numpy as np
import pytest
from integer_graphs import (
    DEEP,
    STATE,
    Bench,
    bidirectional_graph,
    cell,
    check,
    gru_graph,
    joined,
    linear,
    linear_graph,
    once_output,
    part,
    random_inputs,
    steps_input,
    steps_output,
)

from espalier.compiler.ir import Activation, Graph, Gru, Input, Last, Linear, Output, Value, View
from espalier.spec.config import DE1_SOC, SMALL, TINY


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda c: c.name)
@pytest.mark.parametrize(
    ("columns", "rows", "bits", "density"),
    [
        (4, 4, 4, 1.0),
        (1, 1, 4, 1.0),
        (13, 37, 4, 0.4),
        (30, 21, 8, 0.7),
        (40, 9, 8, 1.0),
    ],
)
def test_linear(config, columns, rows, bits, density):
    random = np.random.default_rng(columns * rows)
    check(linear_graph(random, columns, rows, bits=bits, density=density), config)


def test_linear_in_row_blocks():
    random = np.random.default_rng(3)
    bench = check(linear_graph(random, 6, 300, bits=8, density=0.15), TINY)
    assert sum(i.opcode.name == "PRODUCT" for i in bench.program.decode()) > 2


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda c: c.name)
@pytest.mark.parametrize(
    ("inputs", "hidden", "bits", "options"),
    [
        (5, 6, (4, 4), {}),
        (7, 13, (8, 4), {"delta": False}),
        (3, 9, (4, 8), {"input_threshold": 9, "hidden_threshold": 3}),
    ],
)
def test_gru(config, inputs, hidden, bits, options):
    random = np.random.default_rng(inputs)
    check(gru_graph(random, inputs, hidden, bits=bits, **options), config, steps=8)


def test_long_gates_end_after_the_last_product():
    """The new state is made in parts behind all products; a second layer takes over the slots."""
    random = np.random.default_rng(14)
    for layers, delta in ((1, True), (2, False)):
        bench = check(gru_graph(random, 40, 210, layers=layers, density=0.03, delta=delta), SMALL)
        code = bench.program.decode()[bench.program.entries["run"] :]
        last = max(n for n, i in enumerate(code) if i.opcode.name == "PRODUCT")
        behind = [i for i in code[last:] if i.opcode.name == "VECTOR" and i["source"] == 1]
        assert len(behind) == 6


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
        graph = gru_graph(
            random, 9, 11, layers=2, input_threshold=threshold, hidden_threshold=threshold
        )
        bench = Bench(graph, TINY)
        values = random_inputs(random, graph, 9)
        whole = bench.run(values)["output"]
        bench.session.reset()
        given = values["x"] * 2.0**-7
        steps = [
            bench.session.step(given[None, a:b].astype(np.float32))
            for a, b in ((0, 1), (1, 5), (5, 9))
        ]
        np.testing.assert_array_equal(np.concatenate(steps, 1), whole * STATE)


def test_layers_initial_states_heads_and_views():
    """Two layers with given states, per-step and final heads over views, all activations, three
    outputs."""
    random = np.random.default_rng(7)
    x, source = steps_input("x", 10)
    h0 = Value("h0", 2 * 11, STATE, False)
    output = Value("output", 11, STATE, True)
    final = tuple(Value(f"h{i}", 11, STATE, False) for i in range(2))
    cells = ((cell(random, 6, 11),), (cell(random, 11, 11),))
    hidden, squashed = Value("hidden", 7, 2.0**-11, True), Value("squashed", 7, STATE, True)
    gate, relu = Value("gate", 11, STATE, True), Value("relu", 7, 2.0**-11, True)
    head, last, last_head = (
        Value("head", 5, 2.0**-12, True),
        Value("last", 11, STATE, False),
        Value("lh", 4, 2.0**-9, False),
    )
    view = joined(part(squashed, 2, 7), View.of(gate), part(x, 3, 5))
    graph = Graph(
        [
            source,
            Input(h0, False, (2, -1, 11), 1, None, optional=True),
            Gru(part(x, 4, 10), (part(h0, 0, 11), part(h0, 11, 22)), cells, output, final),
            Linear(View.of(output), hidden, linear(random, 11, 7, bits=8, output_scale=2.0**-11)),
            Activation("tanh", View.of(hidden), squashed),
            Activation("relu", View.of(hidden), relu),
            Activation("sigmoid", View.of(output), gate),
            Linear(view, head, linear(random, 18, 5)),
            Last(View.of(output), last),
            Linear(
                joined(View.of(last), View.of(final[0])),
                last_head,
                linear(random, 22, 4, output_scale=2.0**-9),
            ),
        ],
        [
            steps_output("head", View.of(head)),
            steps_output("mixed", joined(part(relu, 1, 6), part(output, 0, 3))),
            once_output("last", View.of(last_head)),
            Output("h_n", joined(View.of(final[0]), View.of(final[1])), (2, -1, 11), 1, None),
        ],
    )
    for config in (DEEP, SMALL):
        bench = check(graph, config)
        values = random_inputs(random, graph, 4)
        del values["h0"]
        bench.check(values)


def test_values_of_another_scale_are_rescaled():
    random = np.random.default_rng(8)
    x, source = steps_input("x", 6, columns=False, scale=2.0**-10)
    y, z = Value("y", 8, 2.0**-12, True), Value("z", 5, 2.0**-11, True)
    graph = Graph(
        [
            source,
            Linear(View.of(x), y, linear(random, 6, 8, scale=2.0**-3)),
            Linear(
                joined(View.of(y), part(x, 0, 3)),
                z,
                linear(random, 11, 5, scale=2.0**-3, output_scale=2.0**-11),
            ),
        ],
        [steps_output("z", joined(View.of(z), View.of(y)))],
    )
    check(graph, TINY)


def test_a_model_without_time():
    random = np.random.default_rng(9)
    x = Value("x", 9, STATE, False)
    y, z = Value("y", 8, STATE, False), Value("z", 5, STATE, False)
    graph = Graph(
        [
            Input(x, True, (-1, 9), 0, None),
            Linear(View.of(x), y, linear(random, 9, 8, output_scale=STATE)),
            Linear(View.of(y), z, linear(random, 8, 5, output_scale=STATE)),
        ],
        [once_output("z", View.of(z))],
    )
    check(graph, TINY)


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        (1, {}),
        (2, {"input_threshold": 5, "hidden_threshold": 2}),
        (2, {"delta": False, "bits": (8, 8)}),
    ],
)
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
    assert (
        bench.program.notes["residency"] == "loaded every run" and not bench.program.whole_sequence
    )
    check(bidirectional_graph(random, 6, 14, 1), TINY)


def test_streamed_layers():
    """One layer larger than the chip, at every kind of threshold; a streamed linear layer behind
    it."""
    random = np.random.default_rng(12)
    for options in (
        {},
        {"input_threshold": 4, "hidden_threshold": 2},
        {"bits": (8, 8), "delta": False},
    ):
        graph = gru_graph(random, 30, 40, density=0.8, **options)
        y = Value("y", 60, 2.0**-12, True)
        graph.operations.append(
            Linear(View.of(graph.operations[1].output), y, linear(random, 40, 60, bits=8))
        )
        graph.outputs.append(steps_output("y", View.of(y)))
        bench = check(graph, replace(DEEP, weight_depth=256, descriptor_depth=64))
        assert bench.program.notes["residency"] == "streamed"


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, DE1_SOC], ids=lambda c: c.name)
def test_a_layer_larger_than_the_chip(config):
    """1,024 dense 8-bit units: input weights once a run, recurrent ones every step."""
    random = np.random.default_rng(13)
    graph = gru_graph(random, 1024, 1024, bits=(8, 8))
    bench = check(graph, config, steps=3)
    told, weights = bench.program.notes["bytes"]["run"], 2 * 3 * 1024**2
    entry_bytes = 16 / (4 * config.quads_per_beat)
    assert weights * entry_bytes <= told["fixed"] <= 1.02 * weights * entry_bytes
    assert weights * entry_bytes <= told["per_step"] <= 1.02 * weights * entry_bytes
