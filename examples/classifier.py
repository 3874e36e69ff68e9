"""A model for the command line: `espalier compile examples/classifier.py:build -o
classifier.espalier`.

`build` returns (model, args, options): the compressed model, example inputs for torch.export, and
keyword arguments of `espalier.compile`. Weights here are random; yours come from a checkpoint.
"""

import torch
from torch import Tensor, nn

import espalier
from espalier.spec.config import SMALL


class Classifier(nn.Module):
    """Scores [B, 12] of a sequence of features [B, T, 40], any T."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(40, 96, batch_first=True)
        self.head = nn.Linear(96, 12)

    def forward(self, features: Tensor) -> Tensor:
        states, _ = self.gru(features)  # [B, T, 96]
        return self.head(torch.relu(states[:, -1]))  # [B, 12]


def build() -> tuple[nn.Module, Tensor, dict]:
    torch.manual_seed(0)
    features = torch.randn(8, 30, 40)
    recipe = espalier.Recipe(density=1 / 8, weight_bits=4, config=SMALL)
    model = espalier.compress(Classifier().eval(), recipe, calibration=[features])
    return model, features[:1], {"config": SMALL}
