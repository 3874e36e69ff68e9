"""Allocations by hand."""

import pytest
import torch

from espalier.compression.allocations import Global, Uniform, make_allocation
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


def test_unknown_allocations_are_refused():
    with pytest.raises(RecipeError, match="allocation must be one of: uniform, global"):
        make_allocation("fair")
