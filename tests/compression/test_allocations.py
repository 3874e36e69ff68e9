"""Allocations by hand."""

import pytest
import torch
from torch import nn

from espalier import Recipe, compress
from espalier.compression.allocations import ErdosRenyi, Global, Uniform, make_allocation
from espalier.errors import RecipeError


def test_uniform_is_the_recipes_wish(make_weight):
    weights = [make_weight([[1.0, 2.0]], density=d) for d in (0.25, 1.0)]
    assert Uniform().densities(weights, [w.value for w in weights]) == [0.25, 1.0]


def test_global_is_one_threshold_for_all(make_weight):
    weights = [make_weight(v) for v in ([[9.0, 8.0, 7.0, 1.0]], [[6.0, 3.0, 2.0, 1.5]])]
    assert Global().densities(weights, [w.value for w in weights]) == [0.75, 0.25]


def test_global_leaves_something_everywhere_and_untouched_ones_out(make_weight):
    values = [[9.0, 8.0, 7.0, 6.0]], [[4.0, 3.0, 2.0, 1.5]], [[0.1, 0.1, 0.1, 0.1]]
    weights = [make_weight(v, density=d) for v, d in zip(values, (0.5, 0.5, 1.0), strict=True)]
    scores = [w.value for w in weights]
    assert Global(least=0).densities(weights, scores) == [1.0, 0.0, 1.0]
    assert Global(least=0.5).densities(weights, scores) == [0.75, 0.25, 1.0]


def test_normalized_scores_do_not_depend_on_a_matrix_scale(make_weight):
    value = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    weights = [make_weight(value), make_weight(value.T * 100)]
    plain, fair = (
        Global(normalize=n).densities(weights, [w.value for w in weights]) for n in (False, True)
    )
    assert fair == [0.5, 0.5] and plain[0] < 0.2


def test_small_matrices_keep_more_for_every_row_and_column(make_weight):
    """2x4 and 8x16 at 1/4: 34 weights for 30 rows and columns, 6 and 24 of them."""
    weights = [make_weight(torch.ones(shape), density=1 / 4) for shape in ((2, 4), (8, 16))]
    small, large = ErdosRenyi().densities(weights, [w.value for w in weights])
    assert small == pytest.approx(34 * 6 / 30 / 8)
    assert large == pytest.approx(34 * 24 / 30 / 128)


def test_blocks_are_matrices_of_their_own(make_weight):
    whole, gates = make_weight(torch.ones(12, 6)), make_weight(torch.ones(12, 6), blocks=3)
    shares = ErdosRenyi().densities([whole, gates], [whole.value, gates.value])
    assert shares[1] / shares[0] == pytest.approx((12 + 3 * 6) / (12 + 6))
    assert sum(shares) == pytest.approx(whole.density + gates.density)


def test_no_share_exceeds_one(make_weight):
    """1x3 takes all it has, 3 of the 32.75 weights; the rest is for 8x16."""
    weights = [make_weight(torch.ones(shape), density=1 / 4) for shape in ((1, 3), (8, 16))]
    found = ErdosRenyi().densities(weights, [w.value for w in weights])
    assert found == [1.0, pytest.approx((32.75 - 3) / 128)]


def test_what_the_recipe_says_of_a_matrix_by_name_holds():
    model = nn.Sequential(nn.Linear(4, 40), nn.Linear(40, 40), nn.Linear(40, 8))
    recipe = Recipe(
        density=1 / 4, allocation="erdos-renyi", pattern="fine-grained",
        layers={"2": {"density": 1 / 8}, "1": {"weight_bits": 8}},
    )  # fmt: skip
    small = compress(model, recipe, calibration=[torch.rand(3, 4)])
    kept = [matrix.kept for matrix in small.espalier_report.matrices]
    share = (4 * 40 + 40 * 40) / 4 / (44 + 80)
    assert kept == [round(44 * share), round(80 * share), 40]


def test_unknown_allocations_are_refused():
    with pytest.raises(
        RecipeError, match="allocation must be one of: uniform, erdos-renyi, global"
    ):
        make_allocation("fair")
