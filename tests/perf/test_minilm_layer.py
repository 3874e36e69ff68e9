"""Two layers of MiniLM's shape, 128 tokens, on DE1_SOC's RTL: exact cycles, as the model says."""

import numpy as np
import pytest
from token_graphs import Maker

from espalier.compiler.tokens.build import build_tokens
from espalier.compiler.tokens.products import block_rows
from espalier.perf import Step, simulate
from espalier.runtime.driver import Driver
from espalier.runtime.token_machine import TokenMachine
from espalier.spec.config import DE1_SOC
from espalier_sim.reference.device import open_reference
from espalier_sim.verilator.device import open_rtl

WIDTH, HEADS, INNER, TOKENS, LAYERS = 384, 12, 1536, 128, 2
DENSITY = 0.2
CYCLES = 774_701


class Balanced(Maker):
    """Weights of which every lane keeps the same number in a column of a block of rows."""

    def linear(self, x, width, scale=None):
        output = super().linear(x, width, scale)
        weight = self.graph.operations[-1].matrix.weight
        lanes = DE1_SOC.lanes
        for first, end in block_rows(width, 1, lanes, DE1_SOC):
            rows = weight[first:end].reshape(-1, lanes, x.width)
            rows[rows == 0] = 1
            kept = self.rng.random(x.width) + len(rows) * DENSITY
            order = self.rng.random(rows.shape).argsort(0).argsort(0)
            rows[order >= kept.astype(int)] = 0
        return output


@pytest.fixture(scope="module")
def graph():
    maker = Balanced(0, bits=4, density=1)
    x = maker.input(WIDTH)
    for _ in range(LAYERS):
        x = maker.post_norm_layer(x, HEADS, INNER)
    return maker.finish(x, TOKENS)


def test_a_layer_takes_this_many_cycles(graph):
    program = build_tokens(graph, DE1_SOC, most_tokens=TOKENS, notes={})
    assert sum(layer.kept for layer in program.layers) == pytest.approx(
        LAYERS * DENSITY * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER), rel=0.02
    )
    x = np.random.default_rng(0).integers(-12000, 12000, (TOKENS, WIDTH))
    steps, results, counters = [], [], {}
    for transport in (
        open_reference(observer=lambda *seen: steps.append(Step(*seen)))(DE1_SOC),
        open_rtl()(DE1_SOC),
    ):
        machine = TokenMachine(Driver(transport, program), program)
        if not results:
            steps.clear()
        results.append(machine.run(x))
        counters = machine.counters
    assert (results[0] == results[1]).all()
    timeline = simulate(DE1_SOC, steps)
    print(timeline.cycles, counters)
    assert timeline.read_beats == counters["read_beats"]
    assert timeline.cycles == pytest.approx(counters["cycles"], rel=0.03)
    assert counters["cycles"] == CYCLES
