"""Scores by hand."""

import pytest
import torch
from torch import nn

from espalier.compression.patterns import FineGrained
from espalier.compression.scores import Magnitude, Movement, SecondOrder, Wanda, make_score
from espalier.errors import RecipeError


def test_magnitude(make_weight):
    weight = make_weight([[1.0, -3.0]])
    assert Magnitude()(weight, weight.value).tolist() == [[1.0, 3.0]]


def test_wanda_is_magnitude_times_the_inputs_root_mean_square(make_weight):
    weight = make_weight([[1.0, -3.0], [2.0, 0.5]])
    weight.state["moment"] = torch.tensor([[16.0, 1.0], [1.0, 0.25]])
    assert Wanda()(weight, weight.value).tolist() == [[4.0, 1.5], [8.0, 0.25]]


def test_second_order_is_the_error_left_after_the_others_have_adjusted(make_weight):
    """Two inputs that are all but equal: either weight can be made up for, so neither matters."""
    x = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.01, 0.0], [0.0, 0.0, 1.0]])
    weight = make_weight([[2.0, 1.0, 0.5]])
    weight.state["moment"] = x.T @ x / len(x)
    score = SecondOrder(damping=1e-9)(weight, weight.value)[0]
    assert score.argmax() == 2 and Magnitude()(weight, weight.value)[0].argmax() == 0
    target = x @ weight.value[0]
    for j in range(3):
        others = [i for i in range(3) if i != j]
        best = torch.linalg.lstsq(x[:, others], target).solution
        error = (x[:, others] @ best - target).square().sum() / len(x)
        assert score[j] == pytest.approx(float(error), rel=1e-2, abs=1e-6)


def test_movement_keeps_what_grows_and_lets_pruned_weights_return(make_weight):
    """Both weights start equal; the loss pulls one to 0 and the other away from it."""
    weight, score = make_weight([[1.0, 1.0]], FineGrained()), Movement()
    weight.frozen = False
    weight.set_mask(torch.tensor([[True, False]]))
    gradient = torch.tensor([[0.5, -0.25]])  # descent makes the first smaller, the second larger
    trained = score.gradient(weight, gradient)
    assert trained.tolist() == [[0.5, 0.0]]  # a pruned weight itself stays as it is
    assert score(weight, weight.value).tolist() == [[-0.5, 0.25]]
    assert weight.project(score(weight, weight.value), 0.5).tolist() == [[False, True]]


def test_movement_rests_when_the_pattern_is_fixed(make_weight):
    weight, score = make_weight([[1.0, -2.0]]), Movement()
    weight.frozen = True
    gradient = torch.ones(1, 2)
    assert score.gradient(weight, gradient) is gradient
    assert score(weight, weight.value).tolist() == [[1.0, 2.0]]


def test_unknown_scores_are_refused_with_the_choices():
    assert make_score(Wanda()) == Wanda()
    with pytest.raises(RecipeError, match=r"one of: magnitude, .*; or an .* Score object; not 3"):
        make_score(3)
    with pytest.raises(RecipeError, match="not Linear"):
        make_score(nn.Linear(1, 1))
