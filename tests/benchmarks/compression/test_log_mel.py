"""Features of signals whose answer is known."""

import log_mel
import numpy as np
import pytest


def sine(hertz, n=4000, amplitude=8000):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(n) / log_mel.RATE_HZ)).astype(np.int16)


@pytest.mark.parametrize("band", [5, 20, 38])
def test_a_tone_is_loudest_in_its_band(band):
    features = log_mel.log_mel(sine(log_mel.band_edges()[band + 1]))
    assert (features[1:-2].argmax(1) == band).all()


def test_half_the_amplitude_is_a_quarter_of_the_energy():
    loud, soft = (log_mel.log_mel(sine(1000, amplitude=a))[3].max() for a in (16000, 8000))
    assert loud - soft == pytest.approx(np.log(4), abs=1e-3)


def test_silence_is_the_floor():
    assert np.allclose(log_mel.log_mel(np.zeros(5000, np.int16)), np.log(log_mel.FLOOR))


@pytest.mark.parametrize(
    "samples, count",
    [(1, 1), (log_mel.WINDOW, 1), (log_mel.WINDOW + 1, 2), (log_mel.WINDOW + 3 * log_mel.HOP, 4)],
)
def test_every_sample_is_in_a_frame(samples, count):
    assert log_mel.log_mel(np.ones(samples, np.int16)).shape == (count, log_mel.BANDS)


def test_triangles_peak_at_one_and_meet_at_their_neighbours():
    fine = np.linspace(log_mel.band_edges()[1], log_mel.band_edges()[-2], 50)
    left = log_mel.band_edges()[:-2]
    assert len(left) == log_mel.BANDS and (np.diff(log_mel.band_edges()) > 0).all()
    assert log_mel.triangles().max() <= 1 and log_mel.triangles().min() == 0
    # Between the first and the last peak each frequency has a weight of 1 in all.
    points = np.arange(log_mel.FFT_SIZE // 2 + 1) * log_mel.RATE_HZ / log_mel.FFT_SIZE
    inside = (points >= fine[0]) & (points <= fine[-1])
    assert np.allclose(log_mel.triangles().sum(0)[inside], 1)
