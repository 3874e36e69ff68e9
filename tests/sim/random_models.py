"""Random models, inputs, cuts and buses, all drawn from one generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from integer_graphs import STATE, cell, linear, once_output, steps_input, steps_output
from paired import equal, in_chunks

from espalier.compiler.backend import build
from espalier.compiler.ir import Graph, Gru, Linear, Value, View
from espalier.errors import CapacityError
from espalier.parameters import GruCellParameters
from espalier.program import Program
from espalier.runtime import Session
from espalier.spec.config import Config

LARGEST = 300
WORK = 1000
"""Bound of a time step's digits per lane: most cases fit the chip, some are streamed."""


def draw_sizes(random: np.random.Generator, low: int, high: int) -> list[int]:
    """Features of the input and of 1-3 layers, each low..high, small ones as often as large."""
    count = random.integers(2, 5)
    exponents = random.uniform(np.log(low), np.log(high + 1), count)
    return [int(size) for size in np.exp(exponents)]


def draw_density(random: np.random.Generator) -> float:
    return float(random.choice([0.02, 0.1, 0.3, 0.7, 1.0]))


def draw_cell(random: np.random.Generator, columns: int, units: int) -> GruCellParameters:
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


def draw_case(random: np.random.Generator, config: Config, work: int = WORK) -> tuple[Graph, Case]:
    """The first model drawn that fits `config`, with at most `work` digits per lane."""
    while True:
        graph = draw_graph(random, draw_sizes(random, 1, LARGEST))
        if digits(graph) > work * config.total_lanes:
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
