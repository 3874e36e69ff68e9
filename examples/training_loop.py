"""Compression inside a training loop of one's own: three calls more than without."""

import torch
from torch import nn

import espalier

STEPS = 60


class Adder(nn.Module):
    """The running mean [B, 1] of the first feature of a sequence [B, T, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 64, batch_first=True)
        self.head = nn.Linear(64, 1)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(32, 12, 4) * 2 - 1
    return x, x[:, :, 0].mean(1, keepdim=True)


def main() -> nn.Module:
    torch.manual_seed(0)
    recipe = espalier.Recipe(density=1 / 4, weight_bits=8)
    compressor = espalier.Compressor(Adder(), recipe, STEPS, calibration=[batch()[0]])  # 1
    optimizer = torch.optim.Adam(compressor.model.parameters(), 5e-3)
    for _ in range(STEPS):
        x, target = batch()
        y = compressor.model(x)
        loss = compressor.loss(nn.functional.mse_loss(y, target), x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        compressor.step()  # 2
    model = compressor.finish()  # 3
    print(f"loss {loss.item():.4f}")
    print(model.espalier_report)
    return model


if __name__ == "__main__":
    main()
