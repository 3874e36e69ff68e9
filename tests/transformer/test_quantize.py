"""A quantized transformer against the float one: each operation from the same inputs, and whole.

Bounds come from the steps of the machine's numbers: a column has 8 bits of its tensor's range, so
half a step is 1/255 of it, and independent errors add as roots of squares.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tiny_transformers as tiny
import torch
from operators_in_floats import reference
from torch import Tensor, nn

from espalier.errors import InputError
from espalier.spec import numerics
from espalier.tokens import graph as tg
from espalier.tokens.evaluate import apply, columns, evaluate
from espalier.tokens.host import embed, samples, to_integers
from espalier.transformer import Options, QuantTransformer, quantize

EXAMPLE = tiny.ids(3, 11)
CALIBRATION = [tiny.ids(3, 11, seed=seed) for seed in range(2, 10)]


def difference(mine: Tensor, theirs: Tensor) -> float:
    """Root of the mean squared difference, as a share of the result's."""
    return float((mine.detach() - theirs).norm() / theirs.norm())


def quantized(model: nn.Module, **options: object) -> QuantTransformer:
    return quantize(model, EXAMPLE, calibration=CALIBRATION, **options)


def run(model: QuantTransformer, sample: Tensor) -> tuple[tg.TokenGraph, dict]:
    """A graph with all its tensors for one sample."""
    graph, host = model.graph(), model.host_input()
    given = samples(host, {"input_ids": sample.numpy()})[0]
    return graph, evaluate(graph, to_integers(host, embed(host, given)))


MODELS = {"bert": (tiny.bert, 0.06), "gpt2": (tiny.gpt2, 0.06)}


@pytest.mark.parametrize("name", MODELS)
def test_whole_models(name: str) -> None:
    make, bound = MODELS[name]
    model = make()
    with torch.no_grad():
        expected = model(EXAMPLE)
    results = quantized(model)(EXAMPLE)
    assert results
    for key, result in results.items():
        assert result.shape == expected[key].shape
        assert difference(result, expected[key]) < bound, key


def test_four_bits_are_coarser_than_eight() -> None:
    model = tiny.gpt2()
    with torch.no_grad():
        expected = model(EXAMPLE).logits
    eight, four = (
        difference(quantized(model, weight_bits=bits)(EXAMPLE)["logits"], expected)
        for bits in (8, 4)
    )
    assert eight < 0.06 < four < 0.5


def test_bits_by_name() -> None:
    model = tiny.gpt2()
    bits = {"transformer.h.0.mlp.c_fc.weight": 4, "": 8}
    graph = quantized(model, weight_bits=bits).graph()
    widths = {o.name: o.matrix.bit_width for o in graph.operations if isinstance(o, tg.Linear)}
    assert widths.pop("transformer.h.0.mlp.c_fc") == 4 and set(widths.values()) == {8}


@pytest.mark.parametrize("name", MODELS)
def test_each_operation_from_the_same_integers(name: str) -> None:
    """Every operation of the graph against torch on the real values of its integer inputs."""
    model = quantized(MODELS[name][0]())
    graph, values = run(model, EXAMPLE[:1])
    checked = set()
    for operation in graph.operations[1:]:
        exact, bound = reference(operation, values)
        result = apply(operation, values) * operation.output.scale
        ends = np.array([numerics.VALUE_MIN, numerics.VALUE_MAX]) * operation.output.scale
        error = np.nanmax(np.abs(result - exact.clip(*ends)))
        assert error <= bound, (operation.output.name, error, bound)
        checked.add(type(operation))
    assert checked == {
        tg.Linear, tg.LayerNorm, tg.Attention, tg.Table, tg.Add,
        *({tg.Rescale} if name == "bert" else ()),
    }  # fmt: skip


def test_padding_is_never_computed() -> None:
    """A padded batch gives what each sample gives alone, and zeros behind it."""
    model = tiny.bert()
    kept = torch.ones_like(EXAMPLE)
    kept[1, 6:] = 0
    example = {"input_ids": EXAMPLE, "attention_mask": kept}
    result = quantize(model, (), example)
    together = result(EXAMPLE, attention_mask=kept)["last_hidden_state"]
    alone = result(EXAMPLE[1:2, :6])["last_hidden_state"]
    assert torch.equal(together[1, :6], alone[0]) and not together[1, 6:].any()
    with torch.no_grad():
        expected = model(**example).last_hidden_state
    assert difference(together[1, :6], expected[1, :6]) < 0.05


@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"norm_first": True}])
def test_float_inputs(options: dict) -> None:
    model = tiny.encoder(2, activation="gelu", **options)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(4, 9, 32, generator=generator) for _ in range(4)]
    if not options.get("batch_first", True):
        batches = [batch.transpose(0, 1) for batch in batches]
    result = quantize(model, batches[0], calibration=batches[1:])(batches[0])["output"]
    with torch.no_grad():
        assert difference(result, model(batches[0])) < 0.04


def test_relu_saturates_where_it_may() -> None:
    model = tiny.Plain().eval()
    results = quantize(model, tiny.ids(2, 7), calibration=[tiny.ids(4, 9, seed=3)])(tiny.ids(2, 7))
    with torch.no_grad():
        expected = model(tiny.ids(2, 7))
    for key, result in results.items():
        assert difference(result, expected[key]) < 0.04, key


def test_keys_and_values_stay_within_their_levels() -> None:
    graph, values = run(quantized(tiny.gpt2()), CALIBRATION[0][:1])
    for operation in graph.operations:
        if isinstance(operation, tg.Attention):
            for tensor in (operation.key, operation.value):
                largest = np.abs(columns(values[tensor])).max()
                assert largest <= 1.03 * numerics.WEIGHT_LEVELS[8]  # rounding moved it: saturates


def test_scales_of_sums_agree() -> None:
    for make in (tiny.bert, tiny.gpt2):
        for operation in quantized(make()).graph().operations:
            if isinstance(operation, tg.Add):
                assert operation.a.scale == operation.b.scale == operation.output.scale


def test_the_effect_of_eps_is_said() -> None:
    model = tiny.encoder()
    x = torch.randn(3, 9, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(model, x)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.1
    with pytest.warns(UserWarning) as caught:
        quantize(model, x)
    messages = [str(each.message) for each in caught]
    assert len(messages) == 2  # norm1, norm2
    assert all("eps=0.1 becomes" in m and "changes results by up to" in m for m in messages)


def test_large_scores_are_said() -> None:
    model = tiny.Plain().eval()
    with torch.no_grad():
        model.qkv.weight.mul_(8)
    with pytest.warns(UserWarning, match="scores beyond ±32 are clipped"):
        quantize(model, tiny.ids(2, 7))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": np.full((1, 4), 100)}, r"input_ids must be in 0..99, not 100"),
        ({"input_ids": np.full((1, 4), -1)}, r"not -1"),
        ({"input_ids": np.zeros((1, 41), int)}, r"1..40 tokens, not 41"),
        ({"input_ids": np.zeros((1, 4))}, "must be integers"),
        ({"input_ids": np.zeros(4, int)}, "must have 2 axes"),
        ({}, "missing are"),
        ({"input_ids": np.zeros((1, 4), int), "x": np.zeros(1)}, "unknown"),
        (
            {"input_ids": np.zeros((1, 4), int), "attention_mask": np.ones((1, 5), int)},
            "attention_mask must have 1 samples of 4 tokens",
        ),
        (
            {"input_ids": np.zeros((1, 4), int), "attention_mask": np.array([[0, 0, 1, 1]])},
            "padding must be on the right",
        ),
    ],
)
def test_wrong_inputs_at_run_time(inputs: dict, message: str) -> None:
    example = {"input_ids": EXAMPLE, "attention_mask": torch.ones_like(EXAMPLE)}
    model = quantize(tiny.bert(), (), example)
    with pytest.raises(InputError, match=message):
        model(**inputs)


def test_calibration_is_needed() -> None:
    model = QuantTransformer(quantized(tiny.gpt2()).tokens)
    with pytest.raises(InputError, match="call calibrate"):
        model.graph()
    with pytest.raises(InputError, match="at least one sample"):
        model.calibrate([])
    with pytest.raises(ValueError, match="must be one of"):
        quantized(tiny.gpt2(), weight_bits=3)


def test_options_reach_the_plan() -> None:
    widest = quantized(tiny.gpt2(), options=Options("max", smooth=False, copies=0))
    assert not widest.plan.smooth and not widest.plan.copies
    clipped = quantized(tiny.gpt2(), options=Options(99.0, smooth=False, copies=0))
    columns = ({v.name: s for v, s in m.plan.column.items()} for m in (clipped, widest))
    pairs = [(a, b) for a, b in zip(*(each.values() for each in columns), strict=True)]
    assert all(a <= b for a, b in pairs) and any(a < 0.9 * b for a, b in pairs)


def test_the_graph_follows_the_weights() -> None:
    model = quantized(tiny.gpt2(layers=1))
    first = model.graph()
    assert model.graph() is first
    with torch.no_grad():
        model.weights.get_parameter("transformer.h.0.mlp.c_fc.weight").mul_(0.5)
    second = model.graph()
    scales = (
        next(o.rows.multiplier for o in graph.operations if getattr(o, "name", "").endswith("c_fc"))
        for graph in (first, second)
    )
    assert not np.array_equal(*scales)
