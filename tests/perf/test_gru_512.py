"""The size that DE1_SOC is designed for, on its RTL: cycles, busy lanes, and the model."""

import gru_512
import pytest

CYCLES_PER_STEP = 679
"""Steady state, every column nonzero; any change of hardware or schedule shows here."""


@pytest.fixture(scope="module")
def program():
    return gru_512.build("DE1_SOC")


@pytest.mark.slow
def test_every_column_nonzero(program):
    row = gru_512.row(program, 1.0)
    assert row["nonzero_columns"] == 1
    assert row["cycles_per_step"] == CYCLES_PER_STEP <= 450 * 512 / row["lanes"]
    assert row["lanes_busy"] >= 0.9
    assert row["modelled_cycles_per_step"] == pytest.approx(CYCLES_PER_STEP, rel=0.03)


@pytest.mark.slow
def test_few_columns_nonzero(program):
    row = gru_512.row(program, 0.1)
    assert row["nonzero_columns"] == pytest.approx(0.1, abs=0.005)
    assert row["cycles_per_step"] < CYCLES_PER_STEP / 2
    assert row["modelled_cycles_per_step"] == pytest.approx(row["cycles_per_step"], rel=0.03)
