"""Every pattern compiles: the hardware's as sparse, others as what they leave, padded."""

import numpy as np
import pytest
import torch
from torch import nn

import espalier
from espalier.compression import Recipe, compress
from espalier.spec.config import TINY


@pytest.mark.parametrize(
    "pattern, padded",
    [("column-balanced", False), ("uniform-k", False), ("fine-grained", True), ("2:4", True)],
)
def test_programs_compute_the_same_and_say_what_is_padded(pattern, padded):
    torch.manual_seed(0)
    x = torch.randn(20, 24)
    recipe = Recipe(density=0.5, weight_bits=4, pattern=pattern, config=TINY)
    small = compress(nn.Linear(24, 16).eval(), recipe, calibration=[x])
    (matrix,) = small.espalier_report.matrices
    program = espalier.compile(small, x[:1], config=TINY)
    (layer,) = program.layers
    assert program.notes["pattern"] == matrix.pattern == pattern
    assert (matrix.entries > 1.1 * matrix.kept) is padded
    assert ("stored padded" in str(small.espalier_report)) is padded
    # weights that round to 0 are not stored: fewer entries than kept weights
    assert layer.entries <= matrix.entries and layer.kept <= matrix.kept
    assert layer.entries >= 0.9 * matrix.entries
    with espalier.open("reference") as device:
        y = device.load(program).run(x)
    assert np.array_equal(y, small(x).detach().numpy())
