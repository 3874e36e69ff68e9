"""Loader, store unit, sequencer and registers on a Cyclone V, by Yosys: their share of the chip,
and memories that stay memories."""

import pytest

from espalier.spec.config import DE1_SOC
from espalier_hw.loader import Loader
from espalier_hw.register_block import RegisterBlock
from espalier_hw.sequencer import Sequencer
from espalier_hw.store import StoreUnit
from espalier_hw.synthesis.cyclonev import measure

BUDGET = {
    Loader: {"alms": 1250, "m10k": 8, "mlab": 33 + 35 + 67 + 128 + 29 + 112},
    StoreUnit: {"alms": 440, "m10k": 4, "mlab": 33 + 43},
    Sequencer: {"alms": 580, "m10k": 7, "mlab": 49 + 2 * 32},
    RegisterBlock: {"alms": 450, "m10k": 0, "mlab": 2 * 64},
}
"""At most that many ALMs, exactly those memories: 2,480 of the 3,000 ALMs for control (with
`RunControl`, 104)."""


@pytest.mark.slow
@pytest.mark.parametrize("unit", BUDGET, ids=lambda unit: unit.__name__)
def test_unit_keeps_to_its_budget(unit):
    budget, usage = BUDGET[unit], measure(unit(DE1_SOC))[""]
    assert (usage.m10k, usage.mlab, usage.dsp) == (budget["m10k"], budget["mlab"], 0)
    assert usage.alms <= budget["alms"]
