"""Corrections on samples: rounding that makes up for its errors, biases without what all tokens
have in common, even channels of attention."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_transformers as tiny
import torch
from torch import Tensor, nn

from espalier.quantized.weights import integer_weight
from espalier.tokens import graph as tg
from espalier.transformer import Options, QuantTransformer, import_tokens, quantize
from espalier.transformer import correct as correct_module
from espalier.transformer.calibrate import Range
from espalier.transformer.even import even
from espalier.transformer.outliers import grid_scales
from espalier.transformer.rounding import round_columns

SAMPLES = [tiny.ids(4, 20, seed=seed) for seed in range(8)]
HELD_OUT = tiny.ids(8, 20, seed=99)


def correlated(tokens: int = 600, width: int = 40) -> Tensor:
    """Inputs [tokens, width] whose columns can stand in for each other."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(width, width, generator=generator) / 6 + 0.5
    return torch.randn(tokens, width, generator=generator) @ mixed


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_makes_up_for_its_errors(bits: int) -> None:
    x, weight = correlated(), torch.randn(12, 40, generator=torch.Generator().manual_seed(1))
    weight[:, 3] = 0
    scale = weight.abs().amax(1) / {4: 7, 8: 119}[bits]
    mine = round_columns(weight, scale, bits, x.T @ x)
    plain = integer_weight(weight, scale, bits)
    errors = [float(((w * scale[:, None] - weight) @ x.T).norm()) for w in (mine, plain)]
    assert errors[0] < 0.6 * errors[1]
    assert torch.equal(mine, mine.round()) and not mine[:, 3].any()
    assert float(mine.abs().max()) <= {4: 7, 8: 119}[bits]
    assert torch.equal(round_columns(weight, scale, bits, torch.zeros(40, 40)), plain)


def integers(model: QuantTransformer) -> dict[str, np.ndarray]:
    operations = model.graph().operations
    return {o.name: o.matrix.weight for o in operations if isinstance(o, tg.Linear)}


def test_rounded_weights_are_kept_as_they_are() -> None:
    """The parameters hold what was rounded: the same integers are found again."""
    model = quantize(tiny.bert(), SAMPLES[0], calibration=SAMPLES)
    before = integers(model)
    plain = integers(quantize(tiny.bert(), SAMPLES[0], calibration=SAMPLES,
                              options=Options(round=False)))  # fmt: skip
    assert any((before[name] != plain[name]).any() for name in before)
    model.correct([{"input_ids": ids} for batch in SAMPLES for ids in batch])
    for name, weight in integers(model).items():
        np.testing.assert_array_equal(weight, before[name])


def test_tied_and_rounded_weights_are_left_alone() -> None:
    model = tiny.gpt2(layers=1)
    steps = torch.rand(1, 64) + 0.5
    with torch.no_grad():
        rounded = model.transformer.h[0].mlp.c_proj.weight  # [inputs, outputs]
        rounded.copy_(torch.randint(-7, 8, rounded.shape) * steps)
        rounded[0] = 7 * steps
    assert grid_scales(rounded.T, 119) is not None
    small = quantize(model, SAMPLES[0], calibration=SAMPLES, options=Options(copies=0))
    own = small.parameters_by_name
    assert torch.equal(own["lm_head.weight"], model.lm_head.weight)
    assert torch.equal(own["transformer.h.0.mlp.c_proj.weight"], rounded)
    assert not torch.equal(
        own["transformer.h.0.mlp.c_fc.weight"], model.transformer.h[0].mlp.c_fc.weight
    )


def common(model: nn.Module, **options: object) -> tuple[float, float]:
    """Of a BERT's hidden states: the whole error, and the part that all tokens have in common, as
    shares of the result."""
    small = quantize(model, SAMPLES[0], calibration=SAMPLES, options=Options(**options))
    with torch.no_grad():
        exact = model(HELD_OUT).last_hidden_state
        error = small(HELD_OUT)["last_hidden_state"] - exact
    together = error.mean((0, 1)).norm() * (error.shape[0] * error.shape[1]) ** 0.5
    return float(error.norm() / exact.norm()), float(together / exact.norm())


def test_biases_take_back_what_is_common() -> None:
    model = tiny.bert()
    with torch.no_grad():  # a range that clips, always to one side
        model.encoder.layer[1].intermediate.dense.bias[:8] += 6
    plain, corrected = (
        common(model, correct=correct, copies=0, activation_range=98.0) for correct in (False, True)
    )
    assert corrected[1] < 0.5 * plain[1] and corrected[0] < plain[0]


def test_a_loud_token_does_not_decide() -> None:
    """The shift is that of most tokens."""
    result = np.zeros((101, 3))
    exact = np.full((101, 3), 2.0)
    exact[0] = 1e4
    shift = correct_module._shift(exact, None, result, 0.5)
    np.testing.assert_array_equal(shift, [4, 4, 4])


def test_many_samples_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = import_tokens(tiny.bert(), SAMPLES[0])
    samples = [{"input_ids": ids} for batch in SAMPLES for ids in batch]
    width = sum(linear.output.width for linear in tokens.linears)
    monkeypatch.setattr(correct_module, "MOST_ELEMENTS", 50 * width)
    assert len(list(correct_module._few(tokens, samples))) == 3


def make_range(x: Tensor) -> Range:
    found = Range()
    found.add(x)
    return found


def test_even_channels() -> None:
    generator = torch.Generator().manual_seed(2)
    loudness = torch.tensor([8.0, 1, 1, 1, 0.5, 1, 1, 2])
    values = torch.randn(400, 8, generator=generator) * loudness
    context = values.view(100, 4, 8).mean(1)
    weight = torch.randn(16, 8, generator=generator)
    factors = even(make_range(values), make_range(context), weight, 119)
    assert factors is not None and factors.argmax() == 0
    divided = (values / factors).abs().amax(0)
    assert divided.max() / divided.min() < values.abs().amax(0).max() / values.abs().amax(0).min()
    flat = torch.randn(400, 8, generator=generator)
    assert even(make_range(flat), make_range(flat[:100]), weight, 119) is None
    rounded = torch.randint(-7, 8, (16, 8), generator=generator).float()
    rounded[:, 0] = 7
    assert even(make_range(values), make_range(context), rounded, 7) is None


def test_even_values_help() -> None:
    """One channel of the values is 12 times as loud as the others."""
    model = tiny.bert()
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.self.value.weight[3] *= 12
            layer.attention.output.dense.weight[:, 3] /= 12
    plain, better = (common(model, even=e, correct=False)[0] for e in (False, True))
    assert better < 0.8 * plain
