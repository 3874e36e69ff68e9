"""`espalier.compress` of transformers, and training with the machine's values."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_transformers as tiny
import torch
from torch import nn

import espalier
from espalier import Recipe
from espalier.errors import RecipeError
from espalier.spec.config import TINY
from espalier.tokens import graph as tg
from espalier.transformer import Options, QuantTransformer, quantize
from espalier.transformer.outliers import grid_scales

CALIBRATION = [tiny.ids(seed=seed) for seed in range(4)]


def linears(model: QuantTransformer) -> dict[str, tg.Linear]:
    return {o.name: o for o in model.graph().operations if isinstance(o, tg.Linear)}


@pytest.mark.parametrize("bits", [4, 8])
def test_compress_prunes_and_rounds(bits: int) -> None:
    model = tiny.gpt2(layers=1)
    recipe = Recipe(
        density=0.5,
        weight_bits=bits,
        config=TINY,
        allocation="uniform",
        layers={"*c_fc": {"weight_bits": 12 - bits}},
    )
    small = espalier.compress(model, recipe, calibration=CALIBRATION)
    assert isinstance(small, QuantTransformer) and not small.training
    assert small.espalier_report.density == pytest.approx(0.5, abs=0.01)
    layers = linears(small)
    for name, layer in layers.items():
        if name == "lm_head":  # tied to the embeddings: left alone
            assert layer.matrix.bit_width == 8
            continue
        assert layer.matrix.bit_width == (12 - bits if name.endswith("c_fc") else bits)
        kept = layer.matrix.weight != 0
        lanes = kept.reshape(-1, TINY.lanes, kept.shape[1]).sum(0)  # entries by lane and column
        assert TINY.lanes * lanes.max(0).sum() <= 0.5 * kept.size, name
    assert torch.equal(model.lm_head.weight, tiny.gpt2(layers=1).lm_head.weight)


def test_rounded_weights_keep_their_steps() -> None:
    """What compress rounded is not rounded again to other steps."""
    steps = torch.rand(6, 1) + 0.5
    weight = torch.randint(-5, 6, (6, 40)) * steps
    weight[:, 0] = 5 * steps[:, 0]
    found = grid_scales(weight, 7)
    assert found is not None and torch.allclose(found, steps[:, 0])
    assert grid_scales(torch.randn(6, 40), 7) is None

    model = tiny.encoder()
    with torch.no_grad():
        model.layers[0].linear2.weight.copy_(
            torch.randint(-5, 6, (32, 64)) * (torch.rand(32, 1) + 0.5)
        )
    x = torch.randn(3, 9, 32)
    small = quantize(model, x, weight_bits=4, options=Options(copies=0))
    layer = linears(small)["layers.0.linear2"]
    integers = torch.from_numpy(layer.matrix.weight.astype(np.float32))
    ratio = model.layers[0].linear2.weight.detach() / integers
    rows = ratio.nan_to_num().abs().amax(1, keepdim=True)
    assert torch.allclose(integers * rows, model.layers[0].linear2.weight.detach(), atol=1e-4)


def test_compress_needs_samples() -> None:
    with pytest.raises(RecipeError, match="give calibration="):
        espalier.compress(tiny.gpt2(layers=1), Recipe())


def loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    logits = model(ids)
    logits = logits["logits"] if isinstance(logits, dict) else logits.logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def test_compress_with_training() -> None:
    ids = tiny.ids(4, 12)
    model = tiny.gpt2(layers=1).train()
    small = espalier.compress(
        model, Recipe(density=0.5, config=TINY), calibration=CALIBRATION,
        batches=[ids], loss=loss, epochs=20, learning_rate=1e-2,
    )  # fmt: skip
    plain = espalier.compress(
        model.eval(), Recipe(density=0.5, config=TINY), calibration=CALIBRATION
    )
    with torch.no_grad():
        assert loss(small, ids) < 0.5 * loss(plain, ids)


def test_training_through_the_machine_keeps_pruned_weights_0() -> None:
    model = tiny.gpt2(layers=1)
    small = espalier.compress(
        model, Recipe(density=0.5, weight_bits=8, config=TINY), calibration=CALIBRATION
    )
    ids = tiny.ids(2, 8)
    before = {name: o.matrix.weight == 0 for name, o in linears(small).items()}
    optimizer = torch.optim.Adam(small.parameters(), 2e-3)
    losses = []
    for _ in range(8):
        value = loss(small, ids)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, layer in linears(small).items():
        if name != "lm_head":
            assert (layer.matrix.weight[before[name]] == 0).all()
    with torch.no_grad():
        assert loss(small, ids).item() < losses[0]
