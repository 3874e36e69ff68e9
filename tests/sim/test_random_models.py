"""Random models, random inputs, random stalls: reference = RTL in every word and every counter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from integer_graphs import bidirectional_graph, random_inputs, tensor
from paired import compare, on_reference
from random_models import LARGEST, Case, case_of, draw_bus, draw_case, draw_graph, draw_sizes

import espalier
from espalier.compiler.backend import build
from espalier.compiler.evaluate import evaluate
from espalier.compiler.ir import Graph, Input
from espalier.spec.config import DE1_SOC, SMALL, TINY, Config

BUDGET_CYCLES = 2_000_000
"""Of all simulated hardware in this file."""
SEEDS = {TINY: 40, SMALL: 16}
TORCH_SEEDS = {TINY: 3, SMALL: 3}
Values = dict[str, np.ndarray]

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def spent() -> Iterator[list[int]]:
    """Cycles that were simulated, a number for each case."""
    cycles: list[int] = []
    yield cycles
    print(f"{sum(cycles)} cycles in {len(cycles)} cases, at most {max(cycles)}")
    assert sum(cycles) <= BUDGET_CYCLES, "draw smaller models, or fewer"


def cases(seeds: dict[Config, int]) -> pytest.MarkDecorator:
    pairs = [(config, seed) for config, count in seeds.items() for seed in range(count)]
    ids = [f"{config.name}-{seed}" for config, seed in pairs]
    return pytest.mark.parametrize(("config", "seed"), pairs, ids=ids)


def check_on_both(random: np.random.Generator, case: Case, spent: list[int]) -> tuple:
    result, cycles = compare(case.program, case.script, **draw_bus(random))
    spent.append(cycles)
    case.check_chunks(result)
    return result


def check_against(graph: Graph, values: Values, outputs: Sequence[np.ndarray]) -> None:
    expected = evaluate(graph, values)
    for output, found in zip(graph.outputs, outputs, strict=True):
        np.testing.assert_array_equal(
            found.reshape(expected[output.name].shape), expected[output.name]
        )


@cases(SEEDS)
def test_random_models(config: Config, seed: int, spent: list[int]) -> None:
    random = np.random.default_rng([seed, config.lanes])
    graph, case = draw_case(random, config)
    whole, _ = check_on_both(random, case, spent)
    check_against(graph, {"x": case.x}, whole)


@cases({TINY: 2, SMALL: 3})
def test_bidirectional_models(config: Config, seed: int, spent: list[int]) -> None:
    """Sequences read backwards as well, in passes with scratch memory between; states given."""
    random = np.random.default_rng([seed, config.lanes, 3])
    inputs, hidden = (int(n) for n in random.integers(1, 12, 2))
    thresholds = {"input_threshold": 7 * seed, "hidden_threshold": 3 * seed}
    graph = bidirectional_graph(random, inputs, hidden, seed % 2 + 1, **thresholds)
    program = build(graph, config, {})
    values = random_inputs(random, graph, 6)
    given = [
        tensor(operation, values[operation.output.name])
        for operation in graph.operations
        if isinstance(operation, Input)
    ]
    outputs, cycles = compare(program, lambda s: s.run_integers(*given), **draw_bus(random))
    spent.append(cycles)
    check_against(graph, values, outputs)


class Stack(torch.nn.Module):
    """A GRU of 1-3 layers, with a linear layer on its last state."""

    def __init__(self, sizes: list[int], layers: int):
        super().__init__()
        self.rnn = torch.nn.GRU(sizes[0], sizes[1], layers, batch_first=True)
        self.head = torch.nn.Linear(sizes[1], sizes[-1])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.rnn(x)
        return states, self.head(states[:, -1])


@cases(TORCH_SEEDS)
def test_random_torch_models(config: Config, seed: int, spent: list[int]) -> None:
    random = np.random.default_rng([seed, config.lanes, 1])
    torch.manual_seed(seed)
    largest = int((4 * config.total_lanes) ** 0.5)
    sizes, layers = [int(n) for n in random.integers(1, 2 * largest, 3)], seed % 3 + 1
    threshold = [0, 5, 40][seed % 3]
    recipe = espalier.Recipe(
        density=[1e-9, 0.3, 1.0][seed % 3],  # the first leaves one word: an entry for each lane
        weight_bits=int(random.choice([4, 8])),
        delta=threshold > 0 or bool(random.integers(2)),
        delta_threshold=threshold,
        config=config,
    )
    x = 3 * torch.randn(2, 6, sizes[0])
    small = espalier.compress(Stack(sizes, layers).eval(), recipe, calibration=[x])
    case = case_of(random, espalier.compile(small, x[:1], config=config))
    check_on_both(random, case, spent)
    with torch.no_grad(), espalier.open("reference") as device:
        for found, expected in zip(device.load(case.program).run(x), small(x), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), atol=0.01)


@pytest.mark.parametrize("config", [SMALL, DE1_SOC], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(3))
def test_large_models_on_the_reference(config: Config, seed: int) -> None:
    random = np.random.default_rng([seed, config.lanes, 2])
    graph = draw_graph(random, draw_sizes(random, 100, LARGEST)[:3])
    case = case_of(random, build(graph, config, {}))
    result = case.script(on_reference(case.program)[0])
    case.check_chunks(result)
    check_against(graph, {"x": case.x}, result[0])
