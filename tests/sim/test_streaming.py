"""What must not change a bit: taking differences at threshold 0, and cutting a sequence."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from integer_graphs import gru_graph
from paired import compare, equal, in_chunks

from espalier.compiler.backend import build
from espalier.compiler.ir import Graph, Gru
from espalier.runtime import Session
from espalier.spec.config import SMALL, TINY, Config

STEPS, FEATURES, UNITS = 5, 9, 11
CUTS = [
    np.diff([0, *(at for at, cut in enumerate(cuts, 1) if cut), STEPS]).tolist()
    for cuts in product([False, True], repeat=STEPS - 1)
]
"""Every way to cut the steps into chunks."""

configs = pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda config: config.name)


def draw(seed: int, **options: int) -> tuple[Graph, np.ndarray]:
    """Two GRU layers, and inputs of which some always change by more than 127, some never."""
    random = np.random.default_rng(seed)
    graph = gru_graph(random, FEATURES, UNITS, layers=2, bits=(4, 8), density=0.7, **options)
    x = random.integers(-127, 128, (1, STEPS, FEATURES))
    x[:, 1::2, :3], x[:, ::2, :3], x[:, :, 3:6] = 127, -127, 5
    return graph, x


def without_deltas(graph: Graph) -> Graph:
    """The same model with plain products."""

    def plain(operation: object) -> object:
        if not isinstance(operation, Gru):
            return operation
        cells = tuple((replace(cell, delta=False),) for (cell,) in operation.cells)
        return replace(operation, cells=cells)

    return replace(graph, operations=[plain(operation) for operation in graph.operations])


@configs
@pytest.mark.parametrize("seed", range(3))
def test_threshold_0_equals_plain(config: Config, seed: int) -> None:
    graph, x = draw(seed)
    results, skipped = [], []

    def script(session: Session) -> np.ndarray:
        states = session.run_integers(x)
        skipped.append(session.counters["skipped"])
        return states

    for model in (graph, without_deltas(graph)):
        result, _ = compare(build(model, config, {}), script, seed=seed, stall=0.2)
        results.append(result)
    equal(*results)
    assert min(skipped[:2]) > max(skipped[2:]), "differences skip what does not change"


@configs
@pytest.mark.parametrize("thresholds", [(0, 0), (0, 20), (20, 0), (30, 30), (200, 100)], ids=str)
def test_any_cut_equals_one_run(config: Config, thresholds: tuple[int, int]) -> None:
    graph, x = draw(sum(thresholds), input_threshold=thresholds[0], hidden_threshold=thresholds[1])
    program = build(graph, config, {})
    real = (x * program.inputs[0].scale).astype(np.float32)

    def script(session: Session) -> list[np.ndarray]:
        return [session.run(real), *(in_chunks(session, real, sizes)[0] for sizes in CUTS)]

    (whole, *parts), _ = compare(program, script, seed=sum(thresholds), stall=0.2)
    assert len(parts) == 2 ** (STEPS - 1) and len(np.unique(whole)) > 10
    for part in parts:
        equal(whole, part)


def test_thresholds_change_results() -> None:
    """The cases above would show nothing if thresholds did nothing."""
    results = []
    for threshold in (0, 30):
        graph, x = draw(0, input_threshold=threshold, hidden_threshold=threshold)
        program = build(graph, TINY, {})
        results.append(compare(program, lambda session, x=x: session.run_integers(x))[0])
    assert not np.array_equal(*results)
