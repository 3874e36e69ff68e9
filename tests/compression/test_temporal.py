"""Differences that are sent: counted by hand, priced by the loss, the machine's own count."""

import pytest
import torch
from torch import nn

import espalier
from espalier.compression import Compressor, Recipe, compress
from espalier.compression.temporal import delta_loss, differences, skipped_columns, watching
from espalier.errors import RecipeError
from espalier.spec.config import TINY


def make_gru(**options):
    torch.manual_seed(0)
    return nn.GRU(4, 6, batch_first=True, **options).eval()


def small_gru(threshold=0, **options):
    layers = {"weight_ih*": {"delta_threshold": threshold}}
    recipe = Recipe(density=1.0, weight_bits=8, layers=layers, config=TINY, **options)
    return compress(make_gru(), recipe, calibration=[torch.ones(1, 3, 4)])


def test_input_columns_are_counted_as_by_hand():
    """x8 of four columns over four steps; 127 steps are 1.0."""
    steps = torch.tensor([[0, 10, 10, 127], [0, 10, 12, 127], [5, 10, 15, 0], [5, 0, 15, 0]])
    x = (steps / 127)[None]
    # Sent: step 1 all but the zero, step 2 one, step 3 three (5, 15, 0), step 4 one.
    assert skipped_columns(small_gru(), [x])["weight_ih_l0"] == (16 - 3 - 1 - 3 - 1) / 16
    # Held back within 3: 12 stays 10 at step 2, and 15 is 5 from 10.
    assert skipped_columns(small_gru(3), [x])["weight_ih_l0"] == (16 - 3 - 0 - 3 - 1) / 16
    # 5 stays 0, 15 stays 10; 0 is 10 from 10.
    assert skipped_columns(small_gru(5), [x])["weight_ih_l0"] == (16 - 3 - 0 - 1 - 1) / 16


def test_without_differences_zeros_are_skipped():
    x = torch.tensor([[[0.0, 0.5, 1.0, 0.0], [0.0, 0.5, 1.0, 1.0]]])
    assert skipped_columns(small_gru(delta=False), x)["weight_ih_l0"] == 3 / 8


@pytest.mark.parametrize("threshold", [0, 6])
def test_shares_are_the_machines_counters(threshold):
    """8 columns everywhere fill TINY's groups, so that the machine skips no padding."""
    recipe = Recipe(density=0.5, delta_threshold=threshold, config=TINY)
    torch.manual_seed(0)
    gru = nn.GRU(8, 8, num_layers=2, batch_first=True).eval()
    x = torch.randn(1, 12, 8).cumsum(1) / 4
    small = compress(gru, recipe, calibration=[x])
    shares = skipped_columns(small, [x])
    program = espalier.compile(small, x, config=TINY)
    with espalier.open("reference") as device:
        session = device.load(program)
        session.run(x.numpy())
        skipped, visits = session.counters["skipped"], session.counters["visits"]
    counted = sum(round(share * 12 * 8) for share in shares.values())
    assert counted * (skipped + visits) == skipped * 4 * 12 * 8
    assert {m.name: m.skipped for m in small.espalier_report.matrices} == shares
    assert f"{shares['weight_hh_l1']:.1%}" in str(small.espalier_report)


def test_thresholds_skip_more_and_layers_have_their_own():
    x = torch.randn(2, 30, 4).cumsum(1) / 8
    shares = {}
    for name, layers in {
        "none": {},
        "hidden": {"weight_hh_l0": {"delta_threshold": 12}},
        "second": {"*_l1": {"delta_threshold": 12}},
    }.items():
        recipe = Recipe(density=1.0, layers=layers)
        small = compress(make_gru(num_layers=2), recipe, calibration=[x])
        shares[name] = skipped_columns(small, x)
    assert shares["hidden"]["weight_hh_l0"] > shares["none"]["weight_hh_l0"]
    assert shares["hidden"]["weight_ih_l0"] == shares["none"]["weight_ih_l0"]
    assert shares["second"]["weight_hh_l0"] == shares["none"]["weight_hh_l0"]
    assert shares["second"]["weight_hh_l1"] > shares["none"]["weight_hh_l1"]


def test_the_cost_is_the_mean_difference_of_states():
    """Of three steps of a two-unit GRU: h8 is what the states' upper bytes are."""
    small, x = small_gru(), torch.rand(1, 3, 4)
    states = small(x)[0][0].detach()
    h8 = torch.floor(torch.cat([torch.zeros(1, 6), states[:-1]]) * 128 + 0.5)
    by_hand = (h8[1] - h8[0]).abs().sum() + (h8[2] - h8[1]).abs().sum()
    for module in small.modules():
        module.watched = True
    small.requires_grad_()
    small(x)
    assert delta_loss(small).item() == pytest.approx(float(by_hand) / 18 / 127)
    with watching(small):
        small(x)
        assert not small.sent["weight_hh_l0"].requires_grad
    assert not small.sent


def test_the_first_difference_is_from_zero():
    sent = torch.tensor([[[3.0]], [[3.0]], [[-1.0]]])
    assert differences(sent).flatten().tolist() == [3, 0, -4]


def make_task(steps=16):
    """Tell the sign of a slow sequence's mean; its columns change little by little."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 32, steps, 4, generator=generator).cumsum(2) / 4
    return [(part, (part.mean((1, 2)) > 0).long()) for part in x]


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = make_gru(), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_training_with_the_penalty_skips_more_columns():
    results = {}
    for penalty in (0.0, 30.0):
        torch.manual_seed(0)
        recipe = Recipe(
            density=1.0, delta_penalty=penalty, layers={"*hh*": {"delta_threshold": 4}}, config=TINY
        )
        small = compress(Reader(), recipe, batches=make_task(), loss=loss, epochs=8)
        results[penalty] = small.espalier_report.matrices[1].skipped
        assert not any(module.watched for module in (small.rnn, small.head))
    assert results[30.0] > results[0.0] + 0.1


def test_a_loop_of_ones_own_pays_in_its_loss():
    compressor = Compressor(Reader(), Recipe(delta_penalty=2.0), 10)
    batch = make_task()[0]
    outputs = compressor.model(batch[0])
    task = nn.functional.cross_entropy(outputs, batch[1])
    assert compressor.loss(task, batch[0], outputs) > task
    assert compressor.loss(task, batch[0], outputs) == task  # each forward is paid for once


def test_what_cannot_be_is_refused():
    with pytest.raises(RecipeError, match="delta_penalty must be at least 0, not -1"):
        Recipe(delta_penalty=-1)
    with pytest.raises(RecipeError, match="needs delta=True"):
        Recipe(delta_penalty=1, delta=False)
    with pytest.raises(RecipeError, match=r"must be 0 for a model without nn.GRU"):
        Compressor(nn.Linear(4, 4), Recipe(delta_penalty=1), 10)
