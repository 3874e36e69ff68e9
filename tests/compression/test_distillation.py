"""Distillation: each part by hand, and in training."""

import pytest
import torch
from torch import nn

from espalier.compression import Compressor, Distillation, Recipe, compress
from espalier.compression.distillation import distance, divergence, similarity_distance
from espalier.errors import InputError, RecipeError
from espalier.spec.config import TINY


def test_divergence_of_two_coins():
    """Teacher 3:1, student even: KL = 0.75·ln 1.5 + 0.25·ln 0.5, times T^2 at T = 1."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    kl = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    assert divergence(student, teacher, 1.0).item() == pytest.approx(kl.item())
    assert divergence(student, 2 * teacher, 2.0).item() == pytest.approx(4 * kl.item())


def test_distance_is_relative():
    teacher = torch.tensor([[3.0, 4.0]])
    assert distance(teacher + 1, teacher).item() == pytest.approx(2 / 25)
    assert distance(10 * teacher + 10, 10 * teacher).item() == pytest.approx(2 / 25)


def test_similarity_sees_which_samples_are_alike_and_nothing_else():
    """Two samples at a right angle against the same one twice: G = 1 or [1 1]/sqrt 2 a row."""
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    turned = torch.tensor([[0.0, 2.0], [-2.0, 0.0]])
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    half = 0.5**0.5
    expected = (2 * (1 - half) ** 2 + 2 * half**2) / 4
    assert similarity_distance(turned, teacher).item() == pytest.approx(0, abs=1e-12)
    assert similarity_distance(same, teacher).item() == pytest.approx(expected)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


X = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))


def make(**wishes):
    torch.manual_seed(0)
    recipe = Recipe(density=0.25, config=TINY, distillation=Distillation(**wishes))
    return Model(), recipe


def test_hidden_states_of_the_chosen_layers_enter_the_loss():
    model, recipe = make(logits=0.0, hidden=2.0, layers=("gru",))
    compressor = Compressor(model, recipe, 10)
    compressor.run.weights[0].set_mask(torch.zeros_like(compressor.run.weights[0].mask))
    out = compressor.model(X)
    student, teacher = compressor.model.gru(X)[0], model.gru(X)[0]
    loss = compressor.loss(torch.tensor(1.0), X, out)
    expected = 1 + 2 * distance(student, teacher)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert compressor.model.gru.weight_ih_l0.grad.abs().sum() > 0
    assert compressor.model.head.weight.grad is None


@pytest.mark.parametrize("method", ["gradual", "sr-ste", "admm"])
def test_following_the_dense_model_brings_hidden_states_closer(method):
    """With no task at all: the loss is 0 but for the teacher's hidden states and similarities."""
    model, recipe = make(logits=0.0, hidden=1.0, correlations=1.0)
    recipe = Recipe(**{**vars(recipe), "method": method, "updates": 10})
    trained = compress(
        model, recipe, batches=[X] * 80, loss=lambda m, b: 0 * m(b).sum(), learning_rate=1e-2
    )
    at_once = compress(model, Recipe(density=0.25, config=TINY), calibration=[X])
    far, near = (distance(m.gru(X)[0], model.gru(X)[0]).item() for m in (at_once, trained))
    assert near < 0.8 * far


def test_arguments_by_name_reach_the_teacher():
    model, recipe = make(logits=1.0)
    losses = []
    compress(
        model, recipe, batches=[{"x": X}] * 3, loss=lambda m, b: m(**b).square().mean(),
        progress=lambda done, total, value: losses.append(value),
    )  # fmt: skip
    assert len(losses) == 3


def test_hooks_are_gone_afterwards():
    model, recipe = make(hidden=1.0)
    small = compress(model, recipe, batches=[X] * 2, loss=lambda m, b: m(b).square().mean())
    assert not small.gru._forward_hooks and not small._forward_hooks


def test_a_number_is_a_share_of_the_logits():
    assert Recipe(distillation=0.3, temperature=3).distills == Distillation(
        logits=0.3, temperature=3
    )
    assert Recipe().distills is None


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"logits": 1.5}, "logits must be in 0..1, not 1.5"),
        ({"hidden": -1}, "hidden must be a number of at least 0, not -1"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"correlations": "all"}, "correlations must be a number of at least 0, not 'all'"),
    ],
)
def test_impossible_wishes_are_refused(wishes, message):
    with pytest.raises(RecipeError, match=message):
        Distillation(**wishes)


def test_layers_that_do_not_exist_or_are_not_called_are_named():
    model, recipe = make(hidden=1.0, layers=("rnn*",))
    with pytest.raises(RecipeError, match=r"match no module; there are: gru, head"):
        Compressor(model, recipe, 10)
    model, recipe = make(hidden=1.0, layers=("gru", "head"))
    compressor = Compressor(model, recipe, 10)
    with pytest.raises(InputError, match="no forward hook is reached in"):
        compressor.loss(torch.tensor(0.0), X, torch.zeros(6, 4))
