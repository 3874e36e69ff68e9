"""A compressed transformer in a file is the whole of it: the same integers come back."""

from __future__ import annotations

import io
import sys

import pytest
import tiny_transformers as tiny
import torch
from safetensors.torch import load_file
from torch import nn

import espalier
from espalier import Recipe
from espalier.cli.build import compile_command
from espalier.compression import load_compressed, save_compressed
from espalier.errors import InputError
from espalier.program import Program
from espalier.spec.config import SMALL
from espalier.transformer import QuantTransformer, import_tokens, quantize
from espalier.transformer.state import pack, unpack

RECIPE = Recipe(density=0.5, weight_bits=4, layers={"*c_fc": {"weight_bits": 8}}, config=SMALL)
IDS = tiny.ids(2, 9)


def loud(model: nn.Module) -> nn.Module:
    """GPT-2 of which one neuron is so loud that it is copied."""
    up, down = model.transformer.h[0].mlp.c_fc, model.transformer.h[0].mlp.c_proj
    with torch.no_grad():
        up.weight[:, 7] = 0
        up.weight[0, 7] = 30
        down.weight[7] *= 2
    return model


def other(make: object, **options: object) -> nn.Module:
    """The same model with other weights."""
    model = make(**options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def test_a_file_gives_the_very_model_back(tmp_path) -> None:
    model = loud(tiny.gpt2())
    small = espalier.compress(model, RECIPE, calibration=[tiny.ids(seed=3)])
    assert small.plan.copies and small.plan.smooth  # or the test says nothing of them
    path = save_compressed(small, RECIPE, tmp_path / "small.safetensors")
    restored = load_compressed(other(tiny.gpt2), path)
    assert isinstance(restored, QuantTransformer) and not restored.training
    assert torch.equal(restored(IDS)["logits"], small(IDS)["logits"])
    assert restored.espalier_report == small.espalier_report
    program, again = (espalier.compile(m, max_length=12, config=SMALL) for m in (small, restored))
    assert bytes(again.image) == bytes(program.image) and again.tokens == program.tokens
    assert torch.equal(load_file(path)["weights.lm_head.weight"], model.lm_head.weight)


def test_masks_come_from_the_file(tmp_path) -> None:
    """Training goes on with the weights that were pruned, whatever the original had."""
    recipe = Recipe(density=0.5, config=SMALL)
    small = espalier.compress(tiny.bert(layers=1), recipe, calibration=[IDS])
    path = save_compressed(small, recipe, tmp_path / "bert.safetensors")
    sparse = other(tiny.bert, layers=1)
    with torch.no_grad():
        sparse.pooler.dense.weight[0] = 0
    restored = load_compressed(sparse, path)
    masks = dict(restored.masks.named_buffers())
    assert masks.keys() == dict(small.masks.named_buffers()).keys() and masks
    with torch.no_grad():
        restored.weights.get_parameter("encoder.layer.0.output.dense.weight").add_(1.0)
    pruned = restored.parameters_by_name["encoder.layer.0.output.dense.weight"] == 0
    assert torch.equal(pruned, ~masks["encoder.layer.0.output.dense.weight"]) and pruned.any()


def test_padding_and_masks_are_imported_again(tmp_path) -> None:
    """The example is in the file: a graph with a mask input, or of a causal encoder, comes back."""
    kept = torch.ones_like(IDS)
    kept[1, 6:] = 0
    recipe = Recipe(density=1, config=SMALL)
    batch = {"input_ids": IDS, "attention_mask": kept}
    small = espalier.compress(tiny.bert(layers=1), recipe, calibration=[batch])
    path = save_compressed(small, recipe, tmp_path / "bert.safetensors")
    restored = load_compressed(other(tiny.bert, layers=1), path)
    results = (m(IDS, attention_mask=kept)["last_hidden_state"] for m in (small, restored))
    assert torch.equal(*results)

    x, causal = torch.randn(2, 9, 32), torch.ones(9, 9, dtype=torch.bool).triu(1)
    batch = {"src": x, "mask": causal}
    small = espalier.compress(tiny.encoder(), recipe, calibration=[batch])
    path = save_compressed(small, recipe, tmp_path / "encoder.safetensors")
    restored = load_compressed(other(tiny.encoder), path)
    assert torch.equal(restored(x)["output"], small(x)["output"])
    assert [o.causal for o in restored.tokens.operations if hasattr(o, "causal")] == [True]


def test_a_state_is_whole_for_torch_too() -> None:
    small = quantize(loud(tiny.gpt2()), IDS, weight_bits={"lm_head.weight": 4, "": 8})
    buffer = io.BytesIO()
    torch.save(small.state_dict(), buffer)
    buffer.seek(0)
    fresh = QuantTransformer(import_tokens(other(tiny.gpt2), IDS))
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh(IDS)["logits"], small(IDS)["logits"])
    small.load_state_dict(QuantTransformer(import_tokens(tiny.gpt2(), IDS)).state_dict())
    with pytest.raises(InputError, match="call calibrate"):
        small.graph()


def test_another_model_is_refused(tmp_path) -> None:
    recipe = Recipe(density=1, config=SMALL)
    small = espalier.compress(tiny.gpt2(layers=1), recipe, calibration=[IDS])
    path = save_compressed(small, recipe, tmp_path / "small.safetensors")
    for model in (tiny.gpt2(layers=2), tiny.gpt2(layers=1, width=32), tiny.bert(), tiny.encoder()):
        with pytest.raises(InputError, match="must belong to this model"):
            load_compressed(model, path)


def test_damaged_scales_are_refused() -> None:
    small = quantize(tiny.gpt2(layers=1), IDS)
    whole = pack(small.bits, small.plan)
    for damaged in (
        whole[:-9],
        torch.frombuffer(bytearray(b'{"format": 1}'), dtype=torch.uint8),
        torch.frombuffer(bytearray(bytes(whole.numpy()).replace(b"lm_head", b"ln_head")),
                         dtype=torch.uint8),
    ):  # fmt: skip
        with pytest.raises(InputError, match="scales"):
            unpack(damaged, small.tokens)
    with pytest.raises(InputError, match="do not fit this model"):
        unpack(whole, import_tokens(tiny.bert(), IDS))


MODEL = """
import torch, tiny_transformers
from espalier.spec.config import SMALL

def build():
    return tiny_transformers.gpt2(layers=1), torch.zeros(1, 5, dtype=int), {
        "config": SMALL, "max_length": 8}
"""


def test_the_command_line_takes_it(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "writer", raising=False)
    (tmp_path / "writer.py").write_text(MODEL)
    small = espalier.compress(loud(tiny.gpt2(layers=1)), RECIPE, calibration=[IDS])
    path = save_compressed(small, RECIPE, tmp_path / "small.safetensors")
    target = tmp_path / "writer.espalier"
    compile_command(f"{tmp_path / 'writer.py'}:build", target, None, path)
    expected = espalier.compile(small, max_length=8, config=SMALL)
    assert bytes(Program.load(target).image) == bytes(expected.image)
