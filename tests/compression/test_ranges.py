"""Ranges of activations, on samples whose best range is known by hand."""

import pytest
import torch

from espalier.compression.ranges import POOL, RANGES, LeastError, Percentile
from espalier.spec.numerics import COLUMN_MAX


def test_each_kind_on_a_thousand_ones_and_an_outlier():
    magnitude = torch.cat([torch.ones(999), torch.tensor([200.0])])
    values = {}
    for name, make in RANGES.items():
        kind = make(99.0)
        kind.add(magnitude)
        values[name] = kind.value()
    assert values["max"] == 200
    assert values["percentile"] == 1
    # At 200 a step is 1.57, the ones err by 0.57 each: 329 in all; at 1 the outlier errs by 199.
    error = {}
    for percent in range(1, 101):
        scale = 2.0 * percent / COLUMN_MAX
        steps = torch.floor(magnitude / scale + 0.5).clamp(max=COLUMN_MAX)
        error[2.0 * percent] = float((steps * scale - magnitude).square().sum())
    assert values["mse"] == min(error, key=error.get) < 200
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
