"""E[x x^T] of every weight, against inputs that were computed by hand."""

import pytest
import torch
from torch import nn

from espalier.compression import Recipe
from espalier.compression.run import Run
from espalier.errors import InputError
from espalier.spec.config import TINY


def collect(model, *batches, **changes):
    run = Run(model, Recipe(**{"arithmetic": "float", "config": TINY, **changes}), 0, list(batches))
    run.collect(run.weights)
    return {weight.name: weight.state["moment"] for weight in run.weights}


def moment(x):
    flat = x.detach().reshape(-1, x.shape[-1])
    return flat.T @ flat / len(flat)


def close(a, b):
    return torch.allclose(a, b, atol=1e-5)


def signal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arithmetic", ["float", "machine"])
def test_linear_layers_over_all_batches(arithmetic):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, 3, bias=False))
    x = signal(4, 6, 5)
    moments = collect(model, x[:1], x[1:], arithmetic=arithmetic)
    assert close(moments["0.weight"], moment(x))
    assert close(moments["2.weight"], moment(model[:2](x)))


@pytest.mark.parametrize("arithmetic", ["float", "machine"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_have_inputs_and_hidden_states(arithmetic, batch_first):
    """Two layers, two directions: h before every step, the first layer's outputs for the second."""
    torch.manual_seed(0)
    gru = nn.GRU(5, 4, 2, bidirectional=True, batch_first=batch_first)
    x = signal(6, 3, 5)  # [T, B, I]
    moments = collect(gru, x.transpose(0, 1) if batch_first else x, arithmetic=arithmetic)
    first = nn.GRU(5, 4, bidirectional=True)
    first.load_state_dict({k: v for k, v in gru.state_dict().items() if "l0" in k})
    y = first(x)[0]  # [T, B, 2H]
    start = torch.zeros(1, 3, 4)
    assert close(moments["weight_ih_l0"], moment(x))
    assert close(moments["weight_hh_l0"], moment(torch.cat([start, y[:-1, :, :4]])))
    assert close(moments["weight_hh_l0_reverse"], moment(torch.cat([y[1:, :, 4:], start])))
    assert close(moments["weight_ih_l1"], moment(y))
    assert close(moments["weight_ih_l1_reverse"], moment(y))


def test_attention_has_its_inputs_and_what_goes_into_the_output_projection():
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(6, 2, batch_first=True)
    x = signal(3, 5, 6)
    moments = collect(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval(), x)
    assert close(moments["self_attn.in_proj_weight"], moment(x))
    q, k, v = (x @ mha.in_proj_weight.T).chunk(3, -1)
    heads = [part.unflatten(-1, (2, 3)).transpose(1, 2) for part in (q, k, v)]
    mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)

    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = mha

        def forward(self, x):
            return self.mha(x, x, x, need_weights=False)[0]

    assert close(collect(SelfAttention(), x)["mha.out_proj.weight"], moment(mixed))


@pytest.mark.parametrize(
    "layer, x",
    [
        (nn.Conv1d(3, 4, 3, stride=2, padding=1, bias=False), signal(2, 3, 9)),
        (nn.Conv2d(3, 4, (2, 3), padding=(0, 1), dilation=(2, 1), bias=False), signal(2, 3, 6, 5)),
    ],
    ids=["1d", "2d"],
)
def test_filters_have_the_inputs_under_every_position(layer, x):
    """Mean over positions of |W x|^2 is the trace of W M W^T, for any W."""
    m = collect(layer, x)["weight"]
    for seed in range(3):
        torch.manual_seed(seed)
        layer.weight.data = torch.randn_like(layer.weight)
        w = layer.weight.detach().flatten(1)
        y = layer(x).detach()
        assert y.square().sum(1).mean().item() == pytest.approx(float((w @ m @ w.T).trace()), 1e-4)


def test_pruned_weights_give_the_inputs_of_later_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    run = Run(model, Recipe(arithmetic="float", config=TINY), 0, [signal(9, 4)])
    run.weights[0].set_mask(torch.tensor([[1], [0], [1], [0]]).bool().expand(4, 4))
    run.collect(run.weights[1:])
    zero = run.weights[1].state["moment"].diagonal() == 0
    assert zero.tolist() == [False, True, False, True]
    assert "moment" not in run.weights[0].state


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Sigmoid()).train()
    run = Run(model, Recipe(config=TINY), 0, [signal(9, 3)])
    run.collect(run.weights)
    assert run.model.training and run.model[1].training
    assert run.model.function_mode is None and not run.model[0].float_mode
    assert torch.backends.mha.get_fastpath_enabled()


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_bad_data_is_named():
    with pytest.raises(InputError, match="must reach every layer; not 'idle"):
        collect(Branch(), signal(3, 2))
    with pytest.raises(InputError, match="input of 'weight' is not"):
        collect(nn.Linear(2, 2), torch.full((1, 2), torch.nan))
    with pytest.raises(InputError, match="at least one batch"):
        collect(nn.Linear(2, 2))
