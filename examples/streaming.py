"""Real time: one time step after the other, state on the chip, bit for bit what one call would
give."""

import numpy as np
import torch
from torch import nn

import espalier
from espalier.spec.config import SMALL


class Denoiser(nn.Module):
    """A mask [B, T, 16] for features [B, T, 16], and the state after the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(16, 48, num_layers=2, batch_first=True)
        self.mask = nn.Linear(48, 16)

    def forward(self, features, state=None):
        states, last = self.gru(features, state)  # [B, T, 48], [2, B, 48]
        return torch.sigmoid(self.mask(states)), last


def main() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 60, 16).cumsum(1) / 8  # slowly varying, as spectra are
    recipe = espalier.Recipe(density=1 / 4, delta_threshold=2, config=SMALL)
    model = espalier.compress(Denoiser().eval(), recipe, calibration=[features])
    program = espalier.compile(model, features, config=SMALL)

    with espalier.open("reference") as device:  # or "rtl"
        session = device.load(program)
        whole, _ = session.run(features)

        session.reset()
        skipped = []
        for t in range(60):
            mask, _ = session.step(features[:, t])  # [1, 16]
            assert np.array_equal(mask, whole[:, t])
            counters = session.counters
            skipped.append(counters["skipped"] / (counters["skipped"] + counters["visits"]))
    print(f"60 steps equal one run; {np.mean(skipped):.0%} of the columns were skipped")


if __name__ == "__main__":
    main()
