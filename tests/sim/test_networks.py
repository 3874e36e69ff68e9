"""Compiled programs in the cocotb bench of the accelerator, on Icarus and on Verilator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import draw_case

import espalier
from espalier.program import Program
from espalier.spec.config import TINY
from espalier_hw.accelerator import Accelerator
from espalier_sim.runner import SIMULATORS, run

WORK = 60
"""Most digits per lane: a few hundred cycles a time step."""


def drawn(seed: int) -> Program:
    """A chain of GRU and linear layers in integers."""
    return draw_case(np.random.default_rng([seed, 3]), TINY, WORK)[1].program


def compressed() -> Program:
    """A GRU from PyTorch, half of its weights kept, that holds small changes back."""
    torch.manual_seed(0)
    model = torch.nn.GRU(5, 7, batch_first=True).eval()
    recipe = espalier.Recipe(density=0.5, weight_bits=8, delta_threshold=4, config=TINY)
    x = torch.randn(2, 6, 5)
    small = espalier.compress(model, recipe, calibration=[x])
    return espalier.compile(small, x[:1], config=TINY)


MODELS = {"compressed": compressed, **{f"drawn{n}": lambda n=n: drawn(n) for n in (1, 3, 7, 9)}}


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("model", MODELS)
def test_network(model: str, simulator: str, tmp_path: Path) -> None:
    file = MODELS[model]().save(tmp_path / "network.espalier")
    seed = list(MODELS).index(model)
    run(
        "espalier_sim.benches.network",
        TINY,
        Accelerator,
        simulator,
        unit="accelerator",
        seed=seed,
        environment={"ESPALIER_PROGRAM": str(file)},
    )
