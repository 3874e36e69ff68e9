"""Ranges of activations, on samples whose best range is known by hand."""

import pytest
import torch

from espalier.compression.ranges import POOL, RANGES, LeastError, Percentile


def test_each_kind_on_many_small_magnitudes_and_an_outlier():
    """n magnitudes up to 1 and one of L, range r: the error is n·(r / 127)^2 / 12 + (L - r)^2.

    It is least at r = L / (1 + n / (12·127^2)).
    """
    n, outlier = 60_000, 10.0
    values = {}
    for name, make in RANGES.items():
        kind = make(99.0)
        kind.add(torch.cat([torch.linspace(0, 1, n), torch.tensor([outlier])]))
        values[name] = kind.value()
    assert values["max"] == outlier
    assert values["percentile"] == pytest.approx(0.99, abs=1e-3)
    assert values["mse"] == pytest.approx(outlier / (1 + n / (12 * 127**2)), rel=0.03)
    assert values["learned"] == values["mse"]


def test_least_error_clips_nothing_where_clipping_costs_more():
    kind = LeastError()
    kind.add(torch.tensor([127.0, 3.0, 64.0, 1.0]))  # all multiples of the step at the full range
    assert kind.value() == 127


def test_batches_count_alike_and_the_largest_is_never_lost():
    kind = Percentile(50.0)
    for part in torch.arange(4 * POOL, dtype=torch.float32).split(POOL // 2 + 1):
        kind.add(part)
    assert len(kind.pool) <= POOL
    assert kind.value() == pytest.approx(2 * POOL, rel=0.01)
    assert kind.largest == 4 * POOL - 1


def test_zeros_have_a_range():
    for make in RANGES.values():
        kind = make(100.0)
        kind.add(torch.zeros(5))
        assert kind.value() == 0


def test_no_channel_is_lost_of_rows_of_any_width():
    """Of 384 channels one in four is large; an even sample has a quarter of large magnitudes."""
    for width in (384, 256, 100):
        channels = (torch.arange(width) % 4 == 3).float()
        kind = Percentile(70.0)
        for _ in range(4):
            kind.add(channels.repeat(1000))
        assert len(kind.pool) <= POOL
        assert kind.pool.mean().item() == pytest.approx(1 / 4, abs=0.01)


def test_the_sample_is_the_same_every_time():
    values = torch.arange(3.0 * POOL)
    kinds = [LeastError(), LeastError()]
    for kind in kinds:
        kind.add(values)
    assert kinds[0].pool.equal(kinds[1].pool)
