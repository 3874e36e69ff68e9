"""Weights outside of models, for parts that need nothing else."""

import pytest
import torch
from torch import nn

from espalier.compression.masking import Masking
from espalier.compression.patterns import FineGrained
from espalier.compression.weights import ROWS_FIRST, Weight


@pytest.fixture
def make_weight():
    """A function: Weight of a matrix given as lists or tensor."""

    def make(value, pattern=None, density=0.5, blocks=1, layout=ROWS_FIRST):
        parameter = nn.Parameter(torch.as_tensor(value, dtype=torch.float32).clone())
        return Weight(
            name="w",
            parameter=parameter,
            holder=Masking(parameter.detach(), None, layout),
            mask_name="mask",
            pattern=pattern or FineGrained(),
            density=density,
            blocks=blocks,
            layout=layout,
        )

    return make
