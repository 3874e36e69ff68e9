"""The cocotb benches, each on both simulators, with stimuli and stalls from the seeds below."""

import pytest

from espalier.spec.config import TINY
from espalier_hw.accelerator import Accelerator
from espalier_hw.engine import DRAIN_LATENCY, Engine
from espalier_hw.loader import Loader
from espalier_hw.register_block import RegisterBlock
from espalier_hw.vector_unit import VectorUnit
from espalier_sim.runner import SIMULATORS, run

UNITS = {
    "vector_unit": lambda config: VectorUnit(config, DRAIN_LATENCY),
    "engine": Engine,
    "register_block": RegisterBlock,
    "loader": Loader,
    "accelerator": Accelerator,
}
SEEDS = (1, 2)


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("unit", UNITS)
def test_unit(unit: str, simulator: str) -> None:
    for seed in SEEDS:
        run(f"espalier_sim.benches.{unit}", TINY, UNITS[unit], simulator, seed=seed)
