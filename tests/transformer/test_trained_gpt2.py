"""A GPT-2 that was trained on text, against itself with the machine's integers: operator by
operator from the same inputs, in loss, and in the tokens that it would write."""

from __future__ import annotations

import pydoc_data.topics

import numpy as np
import pytest
import tiny_transformers as tiny
import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

import espalier
from espalier.spec import numerics
from espalier.spec.config import SMALL
from espalier.tokens import graph as tg
from espalier.tokens.evaluate import apply, evaluate
from espalier.tokens.host import embed, samples, to_integers
from espalier.transformer import Options, QuantTransformer, quantize
from espalier.transformer import float_graph as fg
from espalier.transformer.compute import apply as in_floats

STEPS, CONTEXT = 150, 32
LOSS = 0.01
"""Nats a character that the machine's integers may cost."""
SURE = 0.6
"""A token is the same wherever the float model prefers it by so much: above twice the largest error
of a logit."""
ERRORS = {
    fg.Linear: 0.02,
    fg.LayerNorm: 0.006,
    fg.Attention: 0.02,
    fg.Activation: 0.002,
    fg.Add: 1e-5,
}
"""Norm of each operator's error, as a share of its result's, from the same inputs of 16 bits:
columns and weights of 8 bits, softmax of 127 steps, 128 chords, a unit."""


def corpus() -> tuple[Tensor, int]:
    """Characters of Python's own help, and the size of the alphabet."""
    topics = pydoc_data.topics.topics
    text = "".join(topics[name] for name in sorted(topics)).lower()[:60_000]
    alphabet = sorted(set(text))
    return torch.tensor([alphabet.index(c) for c in text]), len(alphabet)


def windows(text: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - CONTEXT, (count, 1), generator=generator)
    return text[starts + torch.arange(CONTEXT)]


def loss(logits: Tensor, ids: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.fixture(scope="module")
def text() -> Tensor:
    return corpus()[0]


@pytest.fixture(scope="module")
def model(text: Tensor) -> GPT2LMHeadModel:
    """Trained for a few seconds: its logits are far apart where the text is plain."""
    torch.set_num_threads(1)
    model = tiny.gpt2(layers=2, width=48, heads=4, vocabulary=corpus()[1]).train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for step in range(STEPS):
        batch = windows(text[:50_000], 16, seed=step)
        optimizer.zero_grad()
        loss(model(batch, use_cache=False).logits, batch).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@pytest.fixture(scope="module")
def small(model: GPT2LMHeadModel, text: Tensor) -> QuantTransformer:
    batches = [windows(text[:50_000], 8, seed=1000 + n) for n in range(4)]
    return quantize(model, batches[0], {"use_cache": False}, calibration=batches)


def test_it_has_learned(model: GPT2LMHeadModel, text: Tensor) -> None:
    ids = windows(text[50_000:], 16, seed=1)
    with torch.no_grad():
        assert loss(model(ids).logits, ids) < 2.6  # a uniform guess: 3.9


def test_the_loss_stays(model: GPT2LMHeadModel, small: QuantTransformer, text: Tensor) -> None:
    ids = windows(text[50_000:], 24, seed=2)
    with torch.no_grad():
        exact, mine = (loss(each, ids) for each in (model(ids).logits, small(ids)["logits"]))
    assert abs(float(mine - exact)) < LOSS


def test_tokens_are_the_same_where_the_model_is_sure(
    model: GPT2LMHeadModel, small: QuantTransformer, text: Tensor
) -> None:
    ids = windows(text[50_000:], 24, seed=3)
    with torch.no_grad():
        exact, mine = model(ids).logits, small(ids)["logits"]
    assert float((mine - exact).abs().max()) < SURE / 2
    best = exact.topk(2).values
    sure = best[..., 0] - best[..., 1] > SURE
    assert sure.float().mean() > 0.25, "the bound has become meaningless"
    assert torch.equal(exact.argmax(-1)[sure], mine.argmax(-1)[sure])


def test_generated_tokens_are_the_compressed_modules(small: QuantTransformer, text: Tensor) -> None:
    """The program computes the compressed module bit for bit: at any margin, bound 0."""
    program = espalier.compile(small, max_length=24, config=SMALL)
    prompt = windows(text[50_000:], 1, seed=4)[0, :12].tolist()
    with espalier.open("reference") as device:
        found = list(device.load(program).generate(prompt, 10))
    written = list(prompt)
    for token in found:
        assert token == int(small(torch.tensor([written]))["logits"][0, -1].argmax())
        written.append(token)


def test_each_operator_from_the_same_inputs(model: GPT2LMHeadModel, text: Tensor) -> None:
    """The float operator, with the weights that were given, on the real values of what the integer
    operator takes."""
    batches = [windows(text[:50_000], 8, seed=2000 + n) for n in range(4)]
    small = quantize(model, batches[0], {}, calibration=batches, options=Options(copies=0))
    graph, before = small.graph(), small.host_input()
    given = samples(before, {"input_ids": windows(text[50_000:], 1, seed=5).numpy()})[0]
    values = evaluate(graph, to_integers(before, embed(before, given)))
    makers, seen = {o.output.name: o for o in small.tokens.operations}, set()
    for operation in graph.operations[1:]:
        floats = makers[operation.output.name.removesuffix(".columns")]
        if isinstance(operation, tg.Rescale):
            continue
        inputs = {
            value: real(small, value, tensor, values[tensor])
            for value, tensor in zip(fg.inputs_of(floats), inputs_of(operation), strict=True)
        }
        exact = in_floats(floats, inputs, small.tokens.parameters)
        result = apply(operation, values)
        mine = real(small, floats.output, operation.output, result)
        kept = torch.from_numpy(np.abs(result) < numerics.VALUE_MAX)  # ends may saturate
        error = float(((mine - exact) * kept).norm() / (exact * kept).norm())
        print(floats.output.name, round(error, 5))
        assert error < ERRORS[type(floats)], (floats.output.name, error)
        seen.add(type(floats))
    assert seen == set(ERRORS)


def inputs_of(operation: tg.Operation) -> list[tg.Tensor]:
    match operation:
        case tg.Add(a=a, b=b):
            return [a, b]
        case tg.Attention(query=q, key=k, value=v):
            return [q, k, v]
        case _:
            return [operation.input]


def real(
    small: QuantTransformer, value: fg.Value, tensor: tg.Tensor, integers: np.ndarray
) -> Tensor:
    """What integers stand for, channels that exist divided by factors multiplied again."""
    x = torch.from_numpy(integers * tensor.scale).float()
    factors = small.plan.divided.get(value)
    if value in small.plan.smooth and tensor.scale == small.plan.column[value]:
        factors = small.plan.smooth[value]
    return x if factors is None else x * factors
