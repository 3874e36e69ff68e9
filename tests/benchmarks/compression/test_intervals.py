"""Intervals against what theory says, and the ledger of runs."""

import numpy as np
import pytest
from intervals import paired_difference
from ledger import Ledger, key


def test_equal_settings_differ_by_nothing():
    values = np.random.default_rng(0).random((1, 200))
    difference = paired_difference(values, values)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert not difference.significant


def test_pairing_removes_what_recordings_have_in_common():
    """The interval of a difference is that of N(0.02, 0.05²) means over 400: ± 1.96·0.05 / 20."""
    rng = np.random.default_rng(1)
    hard = 3 * rng.random(400)
    noise = rng.normal(size=400)
    first = hard + 0.02 + 0.05 * (noise - noise.mean()) / noise.std()
    difference = paired_difference(first, hard)
    assert difference.value == pytest.approx(0.02)
    assert difference.low == pytest.approx(0.02 - 1.96 * 0.0025, abs=3e-4)
    assert difference.high == pytest.approx(0.02 + 1.96 * 0.0025, abs=3e-4)
    assert difference.significant


def test_seeds_that_disagree_widen_the_interval():
    base = np.zeros((3, 100))
    first = base + np.array([[-1.0], [0.0], [1.0]])
    difference = paired_difference(first, base)
    assert difference.value == 0 and difference.low < -0.5 and difference.high > 0.5


def test_settings_of_other_recordings_are_refused():
    with pytest.raises(ValueError, match="same recordings, not 3 and 4"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_ledger_keeps_rows_and_predictions(tmp_path):
    ledger = Ledger(tmp_path / "results" / "a.csv", tmp_path / "build")
    setting = {"density": 0.5, "seed": 1}
    assert not ledger.finished(setting) and ledger.rows() == []
    ledger.add(setting, {"accuracy": 0.9}, {"test": np.arange(3)})
    again = Ledger(ledger.path, ledger.folder)
    assert again.finished({"seed": 1, "density": 0.5}) and not again.finished(
        {**setting, "seed": 2}
    )
    (row,) = again.rows()
    assert row == {"key": key(setting), "density": "0.5", "seed": "1", "accuracy": "0.9"}
    assert again.predictions(row)["test"].tolist() == [0, 1, 2]
    assert again.predictions({"key": "elsewhere"}) is None


def test_ledger_refuses_other_columns(tmp_path):
    ledger = Ledger(tmp_path / "a.csv", tmp_path)
    ledger.add({"seed": 0}, {"accuracy": 1}, {})
    with pytest.raises(ValueError, match="must have columns"):
        ledger.add({"seed": 1}, {"loss": 1}, {})
    assert len(ledger.rows()) == 1
