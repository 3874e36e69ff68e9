"""Continuous speech made of tones: what a stream is, and a study of one epoch."""

import csv

import fsdd_stream_data as stream_data
import fsdd_streams
import numpy as np
import pytest
import torch
from fsdd_data import load, masks
from fsdd_stream_data import HOP, collate, quiet, read_streams
from fsdd_stream_settings import Setting
from log_mel import RATE_HZ

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def streams(data):
    return read_streams(data)


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_recording_is_in_one_stream_at_most(data, streams):
    for name, mask in zip(streams, masks(load(data), "official"), strict=True):
        digits = torch.cat([s.digits for s in streams[name]])
        assert mask.sum() - 2 * stream_data.DIGITS < len(digits) <= mask.sum()
        assert torch.bincount(digits, minlength=10).max() <= mask.sum() / 10
    again = read_streams(data)["test"][0]
    assert again.features.equal(streams["test"][0].features)


def test_a_digit_is_told_behind_its_end_and_before_the_next(streams):
    """Pauses are 0.2 to 0.4 s: frames just before an answer are speech, those behind it are not."""
    for stream in streams["validation"]:
        assert len(stream.features) == len(stream.speech)
        assert stream.speech[stream.ends - 4].all() and not stream.speech[stream.ends + 1].any()
        assert (stream.ends.diff() * HOP > 0.2 * RATE_HZ).all()
        assert not stream.speech[:10].any() and not stream.speech[-10:].any()
        changes = stream.speech.int().diff().abs().sum()
        assert changes == 2 * stream_data.DIGITS


def test_pauses_are_as_quiet_as_the_quietest_pieces():
    rng = np.random.default_rng(0)
    quiet_part, loud_part = rng.normal(0, 50, 16_000), rng.normal(0, 5000, 48_000)
    samples = np.rint(np.concatenate([quiet_part, loud_part])).astype(np.int16)
    data = {"samples": samples, "offsets": np.array([0, len(samples)])}
    assert quiet(data, np.array([True])) == pytest.approx(50, rel=0.1)


def test_streams_of_a_batch_are_padded_behind(streams):
    some = streams["test"][:3]
    x, ends, digits = collate(some)
    for row, stream in enumerate(some):
        assert x[row, : len(stream.features)].equal(stream.features)
        assert not x[row, len(stream.features) :].any()
        assert ends[row].equal(stream.ends) and digits[row].equal(stream.digits)


@pytest.mark.slow
def test_study_reports_what_is_skipped(data, tmp_path, monkeypatch, capsys):
    small = Setting(density=1 / 4, epochs=1, batch=4)
    monkeypatch.setattr(
        fsdd_streams, "settings", lambda seed: [small.dense, small, held_back(small)]
    )
    monkeypatch.setattr(
        Setting, "dense", property(lambda s: Setting(density=1.0, epochs=1, batch=4))
    )
    monkeypatch.setattr(fsdd_streams, "read_streams", lambda folder: few(read_streams(folder)))
    folders = ["--results", str(tmp_path), "--build", str(tmp_path / "build")]
    assert fsdd_streams.main(["--data", str(data), *folders]) == 0
    assert "| 1/4, threshold 40, 1 epochs | 1 |" in capsys.readouterr().out
    dense, plain, held = table(tmp_path / "fsdd_streams.csv")
    assert dense["skipped"] == ""
    assert float(held["skipped"]) > 0.7 > float(plain["skipped"])
    shares = [float(held[f"skipped_{part}"]) for part in ("speech", "pauses")]
    assert min(shares) <= float(held["skipped"]) <= max(shares)
    names = [
        (row["first"], row["second"]) for row in table(tmp_path / "fsdd_streams_differences.csv")
    ]
    assert names == [
        ("1/4, threshold 0, 1 epochs", "dense"),
        ("1/4, threshold 40, 1 epochs", "dense"),
        ("1/4, threshold 40, 1 epochs", "1/4, threshold 0, 1 epochs"),
    ]
    assert fsdd_streams.main(["--data", str(data), "--sweep", *folders]) == 0
    sweep = table(tmp_path / "fsdd_streams_sweep.csv")
    after = [row for row in sweep if row["key"] == plain["key"]]
    assert after[0]["test_cross_entropy"] == plain["test_cross_entropy"]  # 0 changes nothing
    assert len(sweep) == 2 * len(after) == 2 * len(fsdd_streams.SWEEP)
    skipped = [float(row["skipped"]) for row in after]
    assert skipped == sorted(skipped) and skipped[-1] > 0.5 > skipped[0]
    assert fsdd_streams.main(folders) == 2
    assert "--data must name the folder" in capsys.readouterr().err


def held_back(setting):
    return Setting(**{**setting.values(), "threshold": 40})


def few(streams):
    return {name: part[:4] for name, part in streams.items()}
