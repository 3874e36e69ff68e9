"""Torch's integers against the contract's scalar definitions."""

import math
import random

import pytest
import torch

from espalier.quantized import arithmetic, weights
from espalier.quantized.activations import table_function
from espalier.spec import numerics as nx
from espalier.spec.config import SUM_BITS


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_table_equals_the_contract_for_every_input(name):
    values = [*range(nx.VALUE_MIN, nx.VALUE_MAX, 7), nx.VALUE_MAX]
    segments = nx.make_table(*nx.FUNCTIONS[name])
    expected = [
        nx.clip(nx.table_value(v, *segments[nx.table_segment(v)]), nx.VALUE_MIN, nx.VALUE_MAX)
        for v in values
    ]
    assert arithmetic.table(name, torch.tensor(values)).tolist() == expected


def test_row_parameters_equal_the_contract():
    generator = random.Random(5)
    scales = [2.0 ** generator.uniform(-16, 9.9) for _ in range(200)] + [0.0, 1.0, 2.0**-8]
    biases = [generator.uniform(-9, 9) for _ in scales]
    unit = 2.0**-12
    tensor = torch.tensor(scales, dtype=torch.float64) * unit
    rows = weights.make_rows(tensor, torch.tensor(biases, dtype=torch.float64), unit)
    assert list(zip(rows.multiplier.tolist(), rows.shift.tolist(), strict=True)) == [
        nx.row_scale(scale) for scale in scales
    ]
    assert rows.integer_bias.tolist() == [nx.row_bias(bias, unit) for bias in biases]


def test_largest_scale_is_the_last_that_fits():
    limit = weights.largest_scale(1.0)
    assert nx.row_scale(limit) == ((1 << nx.MULTIPLIER_BITS) - 1, nx.SHIFTS[0])
    rows = weights.make_rows(torch.tensor([limit]), torch.zeros(1), 1.0)
    assert rows.multiplier.item() == (1 << nx.MULTIPLIER_BITS) - 1


@pytest.mark.parametrize("scale", [1.0, 0.013, 3e-7, 12345.6])
def test_grid_scale_makes_elements_exact_in_float32(scale):
    rounded = arithmetic.grid_scale(scale)
    assert scale <= rounded <= scale * (1 + 2.0**-7)
    elements = torch.arange(-32768, 32768)
    real = (elements.double() * rounded).float()
    assert torch.equal(arithmetic.to_values(real, rounded), elements)
    columns = arithmetic.to_columns(real, rounded * 256)
    expected = nx.column_input(elements).clamp(-127, 127)
    assert torch.equal(columns.long(), expected)


def test_rounding_of_ties_goes_up():
    x = torch.tensor([0.5, 1.5, -0.5, -1.5, 126.5, 500.0, -500.0])
    assert arithmetic.to_columns(x, 1.0).tolist() == [1, 2, 0, -1, 127, 127, -127]


@pytest.mark.parametrize("columns", [8, 2000])
def test_product_is_exact(columns):
    generator = torch.Generator().manual_seed(columns)
    weight = torch.randint(100, 120, (3, columns), generator=generator)
    x = torch.randint(100, 128, (4, columns), generator=generator)
    total = arithmetic.product(x.float(), weight.float())
    assert torch.equal(total.long(), x @ weight.T)


def test_held_back_columns_keep_their_last_sent_value():
    sequence = torch.tensor([[3.0], [7.0], [9.0], [2.0], [-127.0], [127.0]])
    held = arithmetic.hold_back_sequence(sequence, 3)
    assert held.flatten().tolist() == [0, 7, 7, 2, -127, 127]
    assert arithmetic.hold_back_sequence(sequence, 0) is sequence


def test_requantize_is_the_contracts_scale_sum_up_to_27_bits():
    generator = random.Random(7)
    limit = 1 << SUM_BITS - 1
    scales = [2.0 ** generator.uniform(-14, 9.9) for _ in range(300)]
    biases = [generator.choice([-1e9, 1e9, generator.uniform(-9, 9)]) for _ in scales]
    rows = weights.make_rows(torch.tensor(scales).double(), torch.tensor(biases).double(), 1.0)
    integer = rows.integer()
    assert {*integer.shift.tolist()} == {*nx.SHIFTS}
    totals = [[generator.randrange(-limit, limit) >> generator.randrange(27) for _ in scales]]
    totals += [[-limit] * len(scales), [limit - 1] * len(scales)]
    expected = [
        [
            nx.clip(nx.scale_sum(total, *map(int, row)), nx.VALUE_MIN, nx.VALUE_MAX)
            for total, *row in zip(
                line, integer.multiplier, integer.shift, integer.bias, strict=True
            )
        ]
        for line in totals
    ]
    assert rows.requantize(torch.tensor(totals).double()).tolist() == expected


def test_scales_of_sparse_rows_are_those_with_the_least_error():
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(30, 64, generator=generator)
    weight *= torch.rand(30, 64, generator=generator) < torch.linspace(0, 1, 30)[:, None]
    scale = weights.row_scales(weight, torch.full((64,), 7.0), math.inf)
    for row, chosen in zip(weight, scale, strict=True):
        full = max(float(row.abs().max()) / 7, weights.SCALE_MIN)
        candidates = torch.tensor([full * ratio for ratio in weights.CLIPPING_RATIOS])[:, None]
        rounded = torch.floor(row / candidates + 0.5).clamp(-7, 7) * candidates
        errors = (rounded - row).square().sum(1)
        own = errors[(candidates[:, 0] / chosen - 1).abs().argmin()]
        assert own <= errors.min() * 1.0001


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_within_their_levels_and_close(bits):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(20, 40, generator=generator)
    level = nx.WEIGHT_LEVELS[bits]
    scale = weights.row_scales(weight, torch.full((40,), float(level)), math.inf)
    integer = weights.integer_weight(weight, scale, bits)
    plain = weight.abs().amax(dim=1) / level
    error = (integer * scale[:, None] - weight).square().sum()
    plain_error = (
        (weights.integer_weight(weight, plain, bits) * plain[:, None] - weight).square().sum()
    )
    assert integer.abs().max() <= level
    assert error <= plain_error
    assert torch.equal(integer, integer.round())


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_table_function_is_close_to_torch_in_value_and_gradient(name):
    x = torch.linspace(-3.9, 3.9, 500, requires_grad=True)
    y = table_function(name, x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    exact = getattr(torch, name)(x)
    (expected,) = torch.autograd.grad(exact.sum(), x)
    # Chords over a step of 1/8 (sigmoid), 1/16 (tanh) err by at most step^2 / 8 · max |f''| < 4e-4.
    assert (y - exact).abs().max() < 5e-4
    assert (gradient - expected).abs().max() < 1e-3
    assert torch.equal(y * 2**15, (y * 2**15).round())
