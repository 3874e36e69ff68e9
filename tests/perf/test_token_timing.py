"""The performance model against the RTL's counters for transformers: reductions, EXPANDs, loops
over tokens."""

import numpy as np
import pytest
from token_graphs import decoder, encoder

from espalier.compiler.tokens.build import build_tokens
from espalier.perf import Step, simulate
from espalier.runtime.driver import Driver
from espalier.runtime.token_machine import TokenMachine
from espalier.spec.config import SMALL, TINY
from espalier_sim.reference.device import open_reference
from espalier_sim.verilator.device import open_rtl


def ran(transport, program, x):
    """Counters of one run of the tokens x."""
    machine = TokenMachine(Driver(transport, program), program)
    machine.run(x)
    return machine.counters


CASES = {
    "one layer": (SMALL, encoder(1, layers=1), 16, 5),
    "short tokens": (TINY, encoder(2, layers=1), 16, 9),
    "long": (SMALL, encoder(5, width=32, heads=2, inner=64), 48, 40),
    "dense": (SMALL, encoder(4, layers=1, width=40, heads=5, inner=70, bits=8), 20, 17),
    "causal": (SMALL, decoder(3, width=32, heads=4, inner=48), 24, 20),
}


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_within_three_percent_of_the_rtl(name):
    config, graph, most, tokens = CASES[name]
    program = build_tokens(graph, config, most_tokens=most, notes={})
    width = graph.operations[0].output.width
    x = np.random.default_rng(0).integers(-12000, 12000, (tokens, width))
    steps = []
    transport = open_reference(observer=lambda *step: steps.append(Step(*step)))(config)
    machine = TokenMachine(Driver(transport, program), program)
    steps.clear()
    machine.run(x)
    timeline = simulate(config, steps)
    counters = ran(open_rtl()(config), program, x)
    print(timeline.cycles, counters)
    assert timeline.words == counters["words"]
    assert timeline.read_beats == counters["read_beats"]
    assert timeline.write_beats == counters["write_beats"]
    assert timeline.cycles == pytest.approx(counters["cycles"], rel=0.03)
