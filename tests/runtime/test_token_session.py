"""Sessions with transformers: what users call, and what they are told when it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_transformers import bert, gpt2

import espalier
from espalier.cli.look import token_lines
from espalier.cli.memory_map import ddr_map
from espalier.errors import CapacityError, DeviceError, InputError, UnsupportedModelError
from espalier.program import Program
from espalier.runtime.token_session import TokenSession
from espalier.spec.config import SMALL
from espalier.transformer import QuantTransformer, quantize

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder() -> tuple[QuantTransformer, Program]:
    ids = torch.arange(22).reshape(2, 11)
    model = quantize(bert(), (ids, torch.ones_like(ids)))
    return model, espalier.compile(model, max_length=12, config=SMALL)


@pytest.fixture(scope="module")
def writer() -> tuple[QuantTransformer, Program]:
    model = quantize(gpt2(), (torch.arange(24).reshape(2, 12),), {"use_cache": False})
    return model, espalier.compile(model, max_length=20, config=SMALL)


@pytest.fixture
def session(encoder):
    with espalier.open("reference") as device:
        yield device.load(encoder[1])


@pytest.fixture
def writing(writer):
    with espalier.open("reference") as device:
        yield device.load(writer[1])


def test_a_padded_batch(encoder, session):
    """The model's own outputs, each sample with its own length; padding gives zeros."""
    ids = torch.arange(22).reshape(2, 11)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    hidden, pooled = session.run(ids.numpy(), mask.numpy())
    assert isinstance(session, TokenSession) and hidden.shape == (2, 11, 32)
    assert not hidden[1, 4:].any() and hidden[1, :4].any()
    expected = encoder[0](ids, mask)
    np.testing.assert_array_equal(hidden, expected["last_hidden_state"].detach().numpy())
    np.testing.assert_array_equal(pooled, expected["pooler_output"].detach().numpy())
    alone = session.run(ids[1:, :4].numpy())
    np.testing.assert_array_equal(alone[0][0], hidden[1, :4])


def test_inputs_by_name_and_from_torch(session):
    ids = torch.arange(11)[None]
    by_name = session.run(input_ids=ids)
    np.testing.assert_array_equal(by_name[0], session.run(ids)[0])


def test_files_keep_the_hosts_part(encoder, tmp_path, session):
    path = encoder[1].save(tmp_path / "bert.espalier")
    ids = np.arange(11)[None]
    with espalier.open("reference") as device:
        np.testing.assert_array_equal(device.load(path).run(ids)[0], session.run(ids)[0])


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (np.full((1, 5), 100), None, r"must be in 0\.\.99, not 100"),
        (np.full((1, 5), -1), None, r"must be in 0\.\.99, not -1"),
        (np.zeros((1, 5)), None, "must be integers"),
        (np.zeros(5, int), None, "must have 2 axes"),
        (np.zeros((2, 5), int), np.ones((2, 4), int), "2 of 4"),
        (np.zeros((1, 4), int), np.array([[0, 1, 1, 1]]), "padding must be on the right"),
        (np.zeros((1, 4), int), np.zeros((1, 4), int), "at least one"),
    ],
)
def test_wrong_inputs(session, ids, mask, message):
    with pytest.raises(InputError, match=message):
        session.run(ids, mask)


def test_more_tokens_than_the_program_holds(session, writing):
    """Refused before they run, whichever way they come; what was there goes on."""
    with pytest.raises(CapacityError, match="12 tokens, not 13; compile it with a larger max_len"):
        session.run(np.zeros((1, 13), int))
    with pytest.raises(CapacityError, match="12 tokens, not 13"):
        session.run_integers(np.zeros((13, 32), int))
    writing.extend(np.arange(18))
    with pytest.raises(CapacityError, match="20 tokens, not 21"):
        writing.extend([1, 2, 3])
    assert writing.position == 18 and writing.extend([1, 2]).shape[0] == 2


def test_surplus_and_unknown_inputs(session):
    ids = np.zeros((1, 3), int)
    with pytest.raises(InputError, match="unknown"):
        session.run(ids, words=ids)
    with pytest.raises(InputError, match="given twice"):
        session.run(ids, input_ids=ids)
    with pytest.raises(InputError, match="takes at most"):
        session.run(*[ids] * 9)


def test_prefill_and_steps_equal_the_whole(writer, writing):
    ids = np.arange(9)
    whole = writing.run(ids[None])[0]
    writing.restart()
    parts = [writing.extend(ids[:5]), writing.extend(ids[5:6]), writing.extend(ids[6:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert writing.position == 9
    expected = next(iter(writer[0](torch.from_numpy(ids)[None]).values()))
    np.testing.assert_array_equal(whole, expected[0].detach().numpy())


def test_greedy_tokens_are_the_likeliest(writer, writing):
    """Token by token what the compressed module says of the whole text."""
    text = [3, 1, 4]
    found = list(writing.generate(text, 6))
    for token in found:
        logits = next(iter(writer[0](torch.tensor([text])).values()))[0, -1]
        assert token == int(logits.argmax())
        text.append(token)
    assert len(found) == 6


def test_sampling_is_seeded_and_stops(writing):
    options = {"temperature": 0.8, "top_k": 5}
    first = list(writing.generate([1, 2], 8, seed=1, **options))
    assert first == list(writing.generate([1, 2], 8, seed=1, **options))
    assert first != list(writing.generate([1, 2], 8, seed=2, **options))
    end = first[2]
    stopped = list(writing.generate([1, 2], 8, seed=1, stop=[end], **options))
    assert stopped == first[: first.index(end) + 1]


def test_tokens_come_one_by_one(writing):
    stream = writing.generate([1, 2, 3], 4)
    next(stream)
    assert writing.position == 3
    next(stream)
    assert writing.position == 4


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([], 3), {}, InputError, "at least one"),
        (([1, 2], 0), {}, InputError, "max_new_tokens must be a positive integer"),
        (([1] * 18, 4), {}, CapacityError, "exceed the program's 20 tokens"),
        (([1], 3), {"temperature": -1}, InputError, "temperature"),
        (([1], 3), {"temperature": 1, "top_k": 0}, InputError, "top_k"),
    ],
)
def test_wrong_generation(writing, arguments, options, error, message):
    with pytest.raises(error, match=message):
        list(writing.generate(*arguments, **options))


def test_a_token_outside_the_vocabulary(writing):
    with pytest.raises(InputError, match=r"0\.\.64, not 65"):
        list(writing.generate([65], 2))


def test_an_encoder_is_not_continued(session):
    with pytest.raises(InputError, match="sees all others"):
        session.extend([1, 2])


def test_a_lost_session_says_so(encoder):
    with espalier.open("reference") as device:
        session = device.load(encoder[1])
        device.load(encoder[1])
        with pytest.raises(DeviceError, match="lost its machine"):
            session.run(np.zeros((1, 3), int))


def test_models_that_cannot_be_compiled(encoder):
    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(UnsupportedModelError, match="training mode"):
        espalier.compile(bert().train(), (ids,), config=SMALL)
    with pytest.raises(InputError, match="at most 40 tokens"):
        espalier.compile(encoder[0], max_length=41, config=SMALL)
    with pytest.raises(CapacityError, match="max_length"):
        layer = torch.nn.TransformerEncoderLayer(16, 2, 20, batch_first=True).eval()
        espalier.compile(layer, (torch.randn(1, 5, 16),), max_length=2000, config=SMALL)


def test_inspect_says_what_the_host_does(encoder, writer):
    lines = "\n".join(token_lines(encoder[1]))
    assert "at most 12 tokens, whole sequences only" in lines
    assert "100 x 32 by input_ids" in lines and "and its LayerNorm" in lines
    assert "for pooler_output: the first token through 32 x 32 tanh" in lines
    assert "continued token by token" in token_lines(writer[1])[0]


def test_the_memory_map_has_no_gap_larger_than_a_page(encoder):
    places = ddr_map(encoder[1])
    assert [name for name, _, _ in places][-2:] == ["records", "keys and values"]
    ends = [end for _, _, end in places]
    gaps = [first - end for (_, first, _), end in zip(places[1:], ends, strict=False)]
    assert min(gaps) >= 0 and max(gaps) < 4096
