"""What moves between DDR and chip: weights once where they fit, and no byte more than modelled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from integer_graphs import gru_graph
from paired import compare

from espalier.compiler.backend import build
from espalier.compiler.evaluate import evaluate
from espalier.compiler.ir import Graph
from espalier.perf import estimate
from espalier.program import Program
from espalier.runtime import Session
from espalier.spec.config import BEAT_BYTES, SMALL

Traffic = tuple[int, int]
"""Bytes read and written."""


def measured(session: Session) -> Traffic:
    """All that the machine has counted since the program was loaded."""
    beats = [
        sum(events[name] for events in session.totals.values())
        for name in ("read_beats", "write_beats")
    ]
    return beats[0] * BEAT_BYTES, beats[1] * BEAT_BYTES


def modelled(program: Program, steps: int) -> Traffic:
    """The instructions, and what they move in a set-up, a reset and a run."""
    parts = [estimate(program, entry=entry, steps=steps) for entry in program.entries]
    read = sum(part.read_bytes for part in parts)
    return program.instructions * BEAT_BYTES + read, sum(part.write_bytes for part in parts)


def step_bytes(program: Program) -> Traffic:
    """Inputs and outputs of one time step."""
    inputs, outputs = (
        sum(port.size_bytes(program.config) for port in ports)
        for ports in (program.inputs, program.outputs)
    )
    return inputs, outputs


def run_on_both(graph: Graph, steps: int, **options: Any) -> tuple[Program, Traffic]:
    """Bytes moved for random inputs, equal on reference and RTL; outputs as `evaluate` has them."""
    program = build(graph, SMALL, {})
    features = len(program.inputs[0].positions)
    x = np.random.default_rng(steps).integers(-127, 128, (1, steps, features))

    def script(session: Session) -> tuple[np.ndarray, np.ndarray]:
        return session.run_integers(x), np.array(measured(session))

    (states, (read, written)), _ = compare(program, script, **options)
    np.testing.assert_array_equal(states[0], evaluate(graph, {"x": x[0]})["output"])
    return program, (int(read), int(written))


@pytest.mark.parametrize("threshold", [0, 10])
def test_a_resident_gru_reads_its_weights_once_in_100_steps(threshold: int) -> None:
    steps, random = 100, np.random.default_rng(threshold)
    graph = gru_graph(random, 37, 50, bits=(4, 8), density=0.3, input_threshold=threshold)
    program, traffic = run_on_both(graph, steps, seed=1, stall=0.1)
    assert program.notes["residency"] == "resident"
    inputs, outputs = step_bytes(program)
    # The image is program, weights, their descriptors, row parameters and tables, each once.
    assert traffic == (len(program.image) + steps * inputs, steps * outputs)
    assert traffic == modelled(program, steps)


@pytest.mark.slow
def test_input_weights_of_a_large_layer_once_and_recurrent_ones_every_step() -> None:
    """1,024 units at 8 bits, dense: 190 times what the chip holds, 2.5 million cycles."""
    steps = 3
    graph = gru_graph(np.random.default_rng(0), 1024, 1024, bits=(8, 8))
    program, traffic = run_on_both(graph, steps, window_bytes=1 << 25)
    assert program.notes["residency"] == "streamed"
    assert traffic == modelled(program, steps)
    entry_bytes = BEAT_BYTES / (4 * SMALL.quads_per_beat)
    input_weights, recurrent_weights = (layer.entries * entry_bytes for layer in program.layers)
    weights = input_weights + steps * recurrent_weights
    assert weights <= traffic[0] <= 1.02 * weights
