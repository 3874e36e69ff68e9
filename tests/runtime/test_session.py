"""Sessions on the reference machine: whole sequences, batches, ragged ones, streaming, chunks, bad
input."""

import numpy as np
import pytest

import espalier
from espalier.errors import CapacityError, DeviceError, FaultError, InputError
from espalier.runtime.buffers import Buffers
from espalier.spec.registers import COUNTERS, Fault


@pytest.fixture
def device():
    with espalier.open("reference", window_bytes=1 << 16) as device:
        yield device


@pytest.fixture
def session(device, running_sum):
    return device.load(running_sum)


def test_run_gives_the_model_in_its_own_shapes(session, sequence):
    output, final = session.run(sequence)
    assert output.dtype == final.dtype == np.float32
    assert np.array_equal(output, np.cumsum(sequence, axis=1))
    assert np.array_equal(final, sequence.sum(axis=1).reshape(2, 6))


def test_run_starts_from_zero_or_from_the_given_state(session, sequence):
    state = np.arange(12, dtype=np.float64).reshape(2, 6)
    session.run(sequence)
    assert np.array_equal(
        session.run(sequence, state)[1], sequence.sum(axis=1).reshape(2, 6) + state
    )
    assert np.array_equal(session.run(sequence, None)[1], sequence.sum(axis=1).reshape(2, 6))


def test_ragged_batches_are_zero_beyond_their_lengths(session, sequence):
    output, final = session.run(sequence, lengths=[3, 7])
    assert (
        np.array_equal(output[0, :3], np.cumsum(sequence[0, :3], axis=0))
        and not output[0, 3:].any()
    )
    assert np.array_equal(output[1], np.cumsum(sequence[1], axis=0))
    assert np.array_equal(
        final, np.stack([sequence[0, :3].sum(axis=0), sequence[1].sum(axis=0)]).reshape(2, 6)
    )


def test_steps_continue_and_equal_one_run(session, sequence):
    whole, final = session.run(sequence[:1])
    session.reset()
    first, _ = session.step(sequence[:1, 0])
    second, _ = session.step(sequence[:1, 1:5])
    third, last = session.step(sequence[:1, 5:])
    assert first.shape == (1, 2, 3)
    assert np.array_equal(np.concatenate([first[:, None], second, third], axis=1), whole)
    assert np.array_equal(last, final)


def test_step_continues_a_run_and_a_given_state(session, sequence):
    _, final = session.run(sequence[:1])
    assert np.array_equal(session.step(sequence[1:, 0])[1], final + sequence[1:, 0].reshape(1, 6))
    session.reset(final)
    assert np.array_equal(session.step(sequence[1:, 0])[1], final + sequence[1:, 0].reshape(1, 6))


def test_long_sequences_are_cut_where_the_window_ends(device, running_sum, session):
    steps = 2 * session.most_steps + 5
    assert steps < 5000
    x = np.random.default_rng(0).integers(-3, 4, (1, steps, 2, 3)).astype(np.float32) * 0.25
    assert np.array_equal(session.run(x)[0], np.cumsum(x, axis=1))
    assert session.counters["read_beats"] == steps * 1


def test_run_integers_leaves_integers_alone(session):
    x = np.array([[[[1, -2, 3], [4, 5, -6]]]])
    output, final = session.run_integers(x)
    assert output.dtype == np.int16 and np.array_equal(output, x)
    assert np.array_equal(final, x.reshape(1, 6))
    with pytest.raises(InputError, match=r"must be in -32768\.\.32767, not -2\.\.40000"):
        session.run_integers(np.array([[[[1, -2, 40000], [0, 0, 0]]]]))


def test_counters_have_every_event_of_the_last_call(session, sequence):
    session.run(sequence)
    assert set(session.counters) == set(COUNTERS)
    assert session.counters["write_beats"] == 2 * (7 + 1)
    session.reset()
    session.step(sequence[:1, 0])
    assert session.counters["write_beats"] == 1 + 1
    assert session.totals["run"]["write_beats"] == 2 * (7 + 1) + 1 + 1
    assert session.totals["reset"]["read_beats"] == 4 * 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            np.zeros((2, 7, 6), np.float32),
            r"'x' must have shape \[batch, time, 2, 3\], not \[2, 7, 6\]",
        ),
        (np.zeros((2, 0, 2, 3), np.float32), r"not \[2, 0, 2, 3\]"),
        (np.zeros((2, 7, 2, 3), np.int64), "must be floating point, not int64"),
        (np.array([[[[0, 0, 0], [0, np.nan, 0]]]]), r"must be finite, not nan at \[0, 0, 1, 1\]"),
        (np.array([[[[0, 0, 0], [0, np.inf, 0]]]]), "must be finite, not inf"),
        ("text", "must have shape"),
        ([[1], [2, 3]], "cannot be read as an array"),
        (None, r"'x' \[batch, time, 2, 3\] is missing"),
    ],
)
def test_bad_input_is_named(session, bad, message):
    with pytest.raises(InputError, match=message):
        session.run(bad)


def test_inputs_that_disagree_are_named(session, sequence):
    with pytest.raises(InputError, match=r"one batch size, not \{'x': 2, 'h0': 3\}"):
        session.run(sequence, np.zeros((3, 6)))
    with pytest.raises(InputError, match="takes at most 2 inputs"):
        session.run(sequence, None, None)
    for lengths in ([1], [0, 7], [1, 8], [1.0, 2.0]):
        with pytest.raises(InputError, match="lengths must be"):
            session.run(sequence, lengths=lengths)


def test_step_refuses_batches(session, sequence):
    with pytest.raises(InputError, match="not a batch of 2"):
        session.step(sequence)
    session.run(sequence)
    with pytest.raises(InputError, match="the last run had several samples"):
        session.step(sequence[:1])


def test_a_second_load_takes_the_machine_over(device, running_sum, session, sequence):
    second = device.load(running_sum)
    with pytest.raises(DeviceError, match="another program was loaded"):
        session.run(sequence)
    assert np.array_equal(second.run(sequence)[0], np.cumsum(sequence, axis=1))
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        second.step(sequence[:1])
    with pytest.raises(DeviceError, match="closed"):
        device.load(running_sum)


def test_a_fault_says_where_and_the_session_recovers(session, sequence):
    message = r"outside window in 'run' at instruction 4 \(LOAD .*\), window offset 0x7fff0"
    with pytest.raises(FaultError, match=message) as caught:
        session._start("run", Buffers({}, {0: 1, 1: 0x7FFF0}, 0))
    assert (caught.value.cause, caught.value.pc, caught.value.address) == (
        Fault.OUTSIDE_WINDOW,
        4,
        0x7FFF0,
    )
    with pytest.raises(InputError, match="the last run failed"):
        session.step(sequence[:1])
    assert np.array_equal(session.run(sequence)[0], np.cumsum(sequence, axis=1))


def test_a_window_too_small_names_the_sizes(running_sum):
    message = r"one time step needs \d+ bytes .* window has 4096"
    device = espalier.open("reference", window_bytes=4096)
    with device, pytest.raises(CapacityError, match=message):
        device.load(running_sum)
