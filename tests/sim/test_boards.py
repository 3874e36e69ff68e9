"""The boards' fabrics with models of what surrounds them, on both simulators."""

import pytest

from espalier.spec.config import TINY
from espalier_hw.boards.de1_soc import De1SocFabric
from espalier_sim.runner import run


@pytest.mark.slow
@pytest.mark.parametrize(("simulator", "seed"), [("icarus", 1), ("verilator", 2)])
def test_de1_soc(simulator: str, seed: int) -> None:
    run("espalier_sim.benches.de1_soc", TINY, De1SocFabric, simulator, seed=seed)
