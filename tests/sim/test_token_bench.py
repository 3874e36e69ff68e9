"""The smallest transformers in the cocotb bench of the accelerator, on Icarus and on Verilator:
what `test_transformers` does with larger ones through the Verilator library."""

from __future__ import annotations

from pathlib import Path

import pytest
from token_graphs import Maker

from espalier.compiler.tokens.build import build_tokens
from espalier.program import Program
from espalier.spec.config import TINY
from espalier_hw.accelerator import Accelerator
from espalier_sim.runner import SIMULATORS, run

MOST = 4
"""Tokens that the programs hold."""


def writer() -> Program:
    """A causal pre-norm layer: attention over the cache, LayerNorms, GELU, residual sums."""
    maker = Maker(1)
    x = maker.pre_norm_layer(maker.input(8), 2, 8)
    return build_tokens(maker.finish(x, MOST), TINY, most_tokens=MOST, notes={})


def reader() -> Program:
    """A post-norm layer in which every token sees all, with 8-bit weights."""
    maker = Maker(2, bits=8)
    x = maker.post_norm_layer(maker.input(8), 1, 8)
    return build_tokens(maker.finish(x, MOST), TINY, most_tokens=MOST, notes={})


MODELS = {"writer": (writer, "2,1"), "reader": (reader, "3")}


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("model", MODELS)
def test_tokens(model: str, simulator: str, tmp_path: Path) -> None:
    make, parts = MODELS[model]
    file = make().save(tmp_path / "tokens.espalier")
    run(
        "espalier_sim.benches.tokens",
        TINY,
        Accelerator,
        simulator,
        unit="accelerator",
        seed=list(MODELS).index(model),
        environment={"ESPALIER_PROGRAM": str(file), "ESPALIER_PARTS": parts},
    )
