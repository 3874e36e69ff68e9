"""Real models in sessions: every axis order, given states, ragged batches, streaming, both
directions.
"""

import numpy as np
import pytest

import espalier
from espalier.errors import CapacityError, InputError
from espalier.spec.config import TINY

torch = pytest.importorskip("torch")


class Tagger(torch.nn.Module):
    """Two layers, a score at every step, the last states out; states in if given."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(5, 7, num_layers=2)
        self.head = torch.nn.Linear(7, 3)

    def forward(self, x, state):
        states, last = self.gru(x, state)
        return self.head(states), last


class Both(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(5, 6, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.gru(x)[0]


def build(model, *args, threshold=0):
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    recipe = espalier.Recipe(density=0.5, weight_bits=8, delta_threshold=threshold, config=TINY)
    small = espalier.compress(model.eval(), recipe, calibration=[args])
    return small, espalier.compile(small, args, config=TINY)


@pytest.fixture(params=[0, 3], ids=["exact", "threshold"])
def tagger(request):
    torch.manual_seed(0)
    x, state = (
        torch.randn(9, 4, 5).cumsum(0) / 2,
        torch.rand(2, 4, 7) * 2 - 1,
    )  # [T, B, 5], [2, B, 7]
    small, program = build(Tagger(), x, state, threshold=request.param)
    with espalier.open("reference") as device:
        yield small, device.load(program), x, state


def test_time_first_batches_with_states_are_the_compressed_model(tagger):
    small, session, x, state = tagger
    scores, last = session.run(x, state)
    with torch.no_grad():
        expected_scores, expected_last = small(x, state)
    units = [port.scale for port in session.program.outputs]
    assert scores.shape == (9, 4, 3) and last.shape == (2, 4, 7)
    assert np.abs(scores - expected_scores.numpy()).max() <= units[0]
    assert np.abs(last - expected_last.numpy()).max() <= units[1]


def test_any_cut_gives_the_same_bits(tagger):
    _, session, x, state = tagger
    whole, last = session.run(x[:, :1], state[:, :1])
    for cuts in ([1] * 9, [4, 5], [2, 6, 1], [8, 1]):
        session.reset(state[:, :1])
        parts = [session.step(part) for part in x[:, :1].split(cuts)]
        assert np.array_equal(np.concatenate([scores for scores, _ in parts]), whole)
        assert np.array_equal(parts[-1][1], last)


def test_a_sample_of_a_batch_is_what_it_is_alone(tagger):
    _, session, x, state = tagger
    lengths = [9, 1, 4, 6]
    scores, last = session.run(x, state, lengths=lengths)
    for sample, length in enumerate(lengths):
        one = slice(sample, sample + 1)
        alone, end = session.run(x[:length, one], state[:, one])
        assert np.array_equal(scores[:length, one], alone) and not scores[length:, one].any()
        assert np.array_equal(last[:, one], end)


def test_both_directions_take_whole_sequences_of_any_length():
    torch.manual_seed(2)
    x = torch.randn(3, 8, 5)
    small, program = build(Both(), x)
    lengths = [8, 3, 5]
    with espalier.open("reference") as device:
        session = device.load(program)
        outputs = session.run(x, lengths=lengths)
        with pytest.raises(InputError, match="whole sequences"):
            session.step(x[:1, 0])
    for sample, length in enumerate(lengths):
        with torch.no_grad():
            expected = small(x[sample : sample + 1, :length]).numpy()
        assert np.abs(outputs[sample, :length] - expected[0]).max() <= program.outputs[0].scale
        assert not outputs[sample, length:].any()


def test_a_window_too_small_for_a_whole_sequence_says_so():
    x = torch.randn(1, 8, 5)
    _, program = build(Both(), x)
    with espalier.open("reference", window_bytes=1 << 16) as device:
        session = device.load(program)
        steps = session.most_steps + 1
        message = rf"{steps} time steps take \d+ bytes, the window has 65536 \({steps - 1} steps\)"
        with pytest.raises(CapacityError, match=message):
            session.run(np.zeros((1, steps, 5), np.float32))
