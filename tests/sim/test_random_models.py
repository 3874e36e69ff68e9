"""Random models, random inputs, random stalls: reference = RTL in every word and every counter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from integer_graphs import STATE, cell, linear, once_output, steps_input, steps_output
from paired import compare, equal, in_chunks, on_reference

import espalier
from espalier.compiler.backend import build
from espalier.compiler.evaluate import evaluate
from espalier.compiler.ir import Graph, Gru, Linear, Value, View
from espalier.errors import CapacityError
from espalier.program import Program
from espalier.runtime import Session
from espalier.spec.config import DE1_SOC, SMALL, TINY, Config

BUDGET_CYCLES = 2_000_000
"""Of all simulated hardware in this file."""
SEEDS = {TINY: 40, SMALL: 16}
TORCH_SEEDS = {TINY: 3, SMALL: 3}
LARGEST = 300
WORK_CYCLES = 1000
"""Bound of a time step's digits per lane: most cases fit the chip, some are streamed."""

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


def draw_sizes(random: np.random.Generator, low: int, high: int) -> list[int]:
    """Features of the input and of 1-3 layers, each low..high, small ones as often as large."""
    count = random.integers(2, 5)
    exponents = random.uniform(np.log(low), np.log(high + 1), count)
    return [int(size) for size in np.exp(exponents)]


def draw_density(random: np.random.Generator) -> float:
    return float(random.choice([0.02, 0.1, 0.3, 0.7, 1.0]))


def draw_cell(random: np.random.Generator, columns: int, units: int):
    """A GRU layer: plain, or with differences at thresholds 0, small or large."""
    thresholds = [int(t) for t in random.choice([0, 0, 3, 40, 150], 2)]
    delta = bool(max(thresholds)) or random.random() < 0.6
    bits = tuple(int(b) for b in random.choice([4, 8], 2))
    return cell(
        random,
        columns,
        units,
        bits=bits,
        density=draw_density(random),
        input_threshold=thresholds[0],
        hidden_threshold=thresholds[1],
        delta=delta,
    )


def draw_graph(random: np.random.Generator, sizes: list[int]) -> Graph:
    """A chain of GRU and linear layers; the last one's steps and all final states come out."""
    value, source = steps_input("x", sizes[0])
    graph = Graph([source])
    for number, size in enumerate(sizes[1:]):
        view = View.of(value)
        if random.random() < 0.7:
            value = Value(f"y{number}", size, STATE, True)
            final = Value(f"h{number}", size, STATE, False)
            cells = ((draw_cell(random, len(view), size),),)
            graph.operations.append(Gru(view, (None,), cells, value, (final,)))
            graph.outputs.append(once_output(final.name, View.of(final)))
        else:
            value = Value(f"y{number}", size, 2.0**-12, True)
            bits, density = int(random.choice([4, 8])), draw_density(random)
            layer = linear(random, len(view), size, bits=bits, density=density)
            graph.operations.append(Linear(view, value, layer))
    graph.outputs.append(steps_output("y", View.of(value)))
    return graph


def digits(graph: Graph) -> int:
    """Digits of all weights that are not zero, low and high ones of 8 bits alike."""
    matrices = []
    for operation in graph.operations:
        if isinstance(operation, Linear):
            matrices.append(operation.parameters.matrix)
        elif isinstance(operation, Gru):
            matrices += [operation.cells[0][0].weight_ih, operation.cells[0][0].weight_hh]
    return sum(np.count_nonzero(matrix.weight) * matrix.planes for matrix in matrices)


def draw_inputs(random: np.random.Generator, steps: int, features: int) -> np.ndarray:
    """[T, features] column inputs: some jump by more than 127, some creep, some are mostly zero."""
    kinds = random.integers(0, 3, features)
    jumping = 127 * (-1) ** np.arange(steps)[:, None] - random.integers(-20, 21, (steps, features))
    creeping = np.cumsum(random.integers(-4, 5, (steps, features)), axis=0)
    sparse = random.integers(-127, 128, (steps, features)) * (
        random.random((steps, features)) < 0.2
    )
    return np.clip(np.choose(kinds, [jumping, creeping, sparse]), -127, 127)


def draw_chunks(random: np.random.Generator, steps: int) -> list[int]:
    """Sizes of consecutive chunks, 1 or more, that sum to `steps`."""
    cuts = np.flatnonzero(random.random(steps - 1) < 0.4) + 1
    return np.diff([0, *cuts, steps]).tolist()


@dataclass
class Case:
    """A model with its inputs, run whole and in chunks."""

    program: Program
    x: np.ndarray
    chunks: list[int]

    def script(self, session: Session) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Integers of the whole run, float32 values of the run in chunks."""
        port = self.program.inputs[0]
        shape = [1 if size == -1 else size for size in port.shape]
        shape[port.time_axis] = len(self.x)
        whole = session.run_integers(self.x.reshape(shape))
        real = (self.x * port.scale).astype(np.float32).reshape(shape)
        whole = list(whole) if isinstance(whole, tuple) else [whole]
        return whole, in_chunks(session, real, self.chunks)

    def check_chunks(self, result: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
        whole, parts = result
        for port, integers, values in zip(self.program.outputs, whole, parts, strict=True):
            equal((integers * np.float64(port.scale)).astype(np.float32), values)


def case_of(random: np.random.Generator, program: Program) -> Case:
    steps = int(random.integers(2, 7))
    x = draw_inputs(random, steps, len(program.inputs[0].positions))
    return Case(program, x, draw_chunks(random, steps))


def draw_case(random: np.random.Generator, config: Config) -> tuple[Graph, Case]:
    """The first model drawn that fits `config` and the budget."""
    while True:
        graph = draw_graph(random, draw_sizes(random, 1, LARGEST))
        if digits(graph) > WORK_CYCLES * config.total_lanes:
            continue
        try:
            program = build(graph, config, {})
        except CapacityError:
            continue
        return graph, case_of(random, program)


def draw_bus(random: np.random.Generator) -> dict[str, float]:
    """Options of the simulated device."""
    return {
        "seed": int(random.integers(1 << 30)),
        "stall": float(random.choice([0.0, 0.2, 0.5])),
        "latency": int(random.integers(0, 60)),
    }


def check_on_both(random: np.random.Generator, case: Case, spent: list[int]) -> tuple:
    result, cycles = compare(case.program, case.script, **draw_bus(random))
    spent.append(cycles)
    case.check_chunks(result)
    return result


def check_against(graph: Graph, x: np.ndarray, outputs: list[np.ndarray]) -> None:
    expected = evaluate(graph, {"x": x})
    for output, found in zip(graph.outputs, outputs, strict=True):
        np.testing.assert_array_equal(
            found.reshape(expected[output.name].shape), expected[output.name]
        )


@cases(SEEDS)
def test_random_models(config: Config, seed: int, spent: list[int]) -> None:
    random = np.random.default_rng([seed, config.lanes])
    graph, case = draw_case(random, config)
    whole, _ = check_on_both(random, case, spent)
    check_against(graph, case.x, whole)


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
    check_against(graph, case.x, result[0])
