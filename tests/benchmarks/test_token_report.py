"""The report of a transformer's cycles and bytes on small programs: what is counted equals the
budget."""

from __future__ import annotations

import numpy as np
import pytest
from token_graphs import encoder
from token_report import attention_places, budget, shares, traffic

from espalier.compiler.tokens.build import build_tokens
from espalier.perf import simulate
from espalier.perf.trace import Step
from espalier.program import Program
from espalier.runtime.driver import Driver
from espalier.runtime.token_machine import TokenMachine
from espalier.spec.config import BEAT_BYTES, SMALL, TINY, Config
from espalier.spec.isa import Opcode
from espalier.spec.tokens import AHEAD
from espalier_sim.reference.device import open_reference

SIZES = {"TINY": (16, 24), "SMALL": (64, 128)}
"""Widths that fill the lanes: nothing is padded, as in MiniLM on DE1_SOC."""


def run(program: Program, tokens: int) -> tuple[list[Step], dict[str, int]]:
    """The trace of a run, and its counters."""
    steps: list[Step] = []
    transport = open_reference(observer=lambda *seen: steps.append(Step(*seen)))(program.config)
    machine = TokenMachine(Driver(transport, program), program)
    steps.clear()
    machine.run(
        np.random.default_rng(0).integers(-9000, 9000, (tokens, SIZES[program.config.name][0]))
    )
    return steps, machine.counters


def made(layers: int, config: Config) -> Program:
    width, inner = SIZES[config.name]
    graph = encoder(1, layers=layers, width=width, inner=inner)
    return build_tokens(graph, config, most_tokens=16, notes={})


@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda config: config.name)
@pytest.mark.parametrize("layers", [2, 3])
def test_counted_bytes_are_the_budget(config: Config, layers: int) -> None:
    """Cached rows exactly; of the image, the early loads of one layer more, whatever the length;
    of rows, those ahead of and behind the sequence, whatever its length."""
    program, beyond = made(layers, config), []
    for tokens in (4, 6, 10):
        steps, counters = run(program, tokens)
        counted = traffic(steps)
        read = counted["image"] + counted["cache"] + counted["rows_read"]
        assert read == counters["read_beats"] * BEAT_BYTES
        assert counted["rows_written"] == counters["write_beats"] * BEAT_BYTES
        wanted = budget(program, tokens, layers, *SIZES[config.name])
        beyond.append({name: counted[name] - wanted[name] for name in counted})
    assert beyond[0] == beyond[1] == beyond[2]
    once = budget(program, 1, layers, *SIZES[config.name])
    assert beyond[0]["cache"] == 0
    assert 0 < beyond[0]["image"] < wanted["image"] / layers
    for name in ("rows_read", "rows_written"):
        assert 0 <= beyond[0][name] <= AHEAD * once[name]


def test_one_layer_loads_its_image_once() -> None:
    program = made(1, TINY)
    for tokens in (1, 7):
        counted = traffic(run(program, tokens)[0])
        assert counted["image"] == budget(program, tokens, 1, *SIZES["TINY"])["image"]


def test_shares_are_a_whole() -> None:
    program = made(2, TINY)
    steps, _ = run(program, 8)
    found = shares(TINY, steps)
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    assert all(share > 0.02 for share in found.values())
    busy = simulate(TINY, steps)
    engine = found["projections"] + found["attention"]
    assert engine == pytest.approx(busy.product_cycles / busy.cycles, abs=2e-3)


def test_attention_is_found() -> None:
    code = made(2, TINY).decode()
    places = attention_places(code)
    expands = {pc for pc, i in enumerate(code) if i.opcode is Opcode.EXPAND}
    products = {pc for pc, i in enumerate(code) if i.opcode is Opcode.PRODUCT}
    assert expands and expands <= places
    assert products & places and products - places
