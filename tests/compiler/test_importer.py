"""Models imported from torch: operations found, values equal to the quantized module's integers."""

import numpy as np
import pytest
import torch
from torch import nn

import espalier
from espalier.compiler.frontend import import_model
from espalier.compiler.ir import Activation, Gru, Input, Last, Linear


class Around(nn.Module):
    """A GRU of 5 inputs and 6 units, two heads, and a function of (model, x, y, h_n)."""

    def __init__(self, function=None, **options):
        super().__init__()
        torch.manual_seed(1)
        self.gru = nn.GRU(5, 6, **{"batch_first": True, **options})
        for name, parameter in self.gru.named_parameters():
            if "bias" in name:
                parameter.data.uniform_(-0.8, 0.8)
        width = 12 if self.gru.bidirectional else 6
        self.head, self.small = nn.Linear(width, 4), nn.Linear(3, 2)
        self.function = function

    def forward(self, x, h0=None):
        y, h_n = self.gru(x, h0)
        return (y, h_n) if self.function is None else self.function(self, x, y, h_n)


def signal(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


GRUS = [
    dict(),
    dict(num_layers=2),
    dict(num_layers=3, bias=False),
    dict(batch_first=False),
    dict(bidirectional=True),
    dict(num_layers=2, bidirectional=True, batch_first=False),
]


@pytest.mark.parametrize("options", GRUS, ids=str)
def test_gru_alone_all_steps_and_states(imported, options):
    shape = (3, 8, 5) if options.get("batch_first", True) else (8, 3, 5)
    model = imported(Around(**options), signal(*shape), density=0.5)
    assert model.kinds() == ["Input", "Gru"]
    assert model.graph.operations[0].columns
    model.check(signal(*shape, seed=4))


@pytest.mark.parametrize("options", GRUS[1:5], ids=str)
def test_gru_with_initial_state(imported, options):
    first = options.get("batch_first", True)
    layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    x, h0 = signal(*((3, 8, 5) if first else (8, 3, 5))), torch.tanh(signal(layers, 3, 6, seed=5))
    model = imported(Around(**options), x, h0)
    state = model.inputs["h0"]
    assert (state.optional, state.columns, state.batch_axis, state.time_axis) == (
        True,
        False,
        1,
        None,
    )
    assert state.output.scale == 2**-15
    model.check(x, torch.tanh(signal(layers, 3, 6, seed=6)))


def test_any_length_and_batch(imported):
    model = imported(Around(lambda m, x, y, h: m.head(y)), signal(2, 3, 5))
    for batch, steps in ((1, 1), (4, 1), (1, 17)):
        model.check(signal(batch, steps, 5))


@pytest.mark.parametrize(
    "shape", [(1, 1, 5), (1, 6, 5), (2, 1, 5), (2, 11, 5), (13, 13, 5)], ids=str
)
def test_example_sizes_do_not_matter(imported, shape):
    model = imported(Around(lambda m, x, y, h: m.head(y[:, -1])), signal(*shape))
    assert model.graph.outputs[0].shape == (-1, 4)
    model.check(signal(3, 7, 5))


LAST = {
    "select": lambda m, x, y, h: m.head(y[:, -1]),
    "length": lambda m, x, y, h: m.head(y[:, x.shape[1] - 1]),
    "slice": lambda m, x, y, h: m.head(y[:, -1:]).squeeze(1),
    "state": lambda m, x, y, h: m.head(h[-1]),
    "squeezed state": lambda m, x, y, h: m.head(h[-1:].squeeze(0)),
    "after the head": lambda m, x, y, h: m.head(y)[:, -1, :],
}


@pytest.mark.parametrize("name", LAST)
def test_last_step(imported, name):
    model = imported(Around(LAST[name]), signal(3, 8, 5))
    assert model.graph.outputs[0].time_axis is None
    assert model.kinds().count("Last") == (0 if "state" in name else 1)
    model.check(signal(4, 5, 5))


MOVEMENT = {
    "slice": lambda m, x, y, h: m.small(y[..., 2:5]),
    "stride": lambda m, x, y, h: m.small(y[:, :, ::2]),
    "cat": lambda m, x, y, h: m.head(torch.cat([y[..., 3:], y[..., :3]], dim=-1)),
    "stack": lambda m, x, y, h: torch.stack([y, y.flip(2)], dim=2).flatten(2),
    "narrow": lambda m, x, y, h: m.small(y.narrow(2, 1, 3)),
    "chunk": lambda m, x, y, h: m.head(torch.cat(y.chunk(2, dim=2)[::-1], -1)),
    "split": lambda m, x, y, h: m.head(torch.cat(y.split([1, 5], dim=-1)[::-1], -1)),
    "unbind": lambda m, x, y, h: m.head(torch.stack(y.unbind(-1)[::-1], dim=-1)),
    "groups": lambda m, x, y, h: m.small(y.view(x.shape[0], x.shape[1], 2, 3)),
    "unflatten": lambda m, x, y, h: m.small(y.unflatten(-1, (2, 3))).flatten(-2),
    "transpose groups": lambda m, x, y, h: m.head(
        y.unflatten(-1, (2, 3)).transpose(2, 3).reshape(x.shape[0], -1, 6)
    ),
    "merge batch and time": lambda m, x, y, h: m.head(y.reshape(-1, 6)).view(x.shape[0], -1, 4),
    "time first": lambda m, x, y, h: m.head(y.permute(1, 0, 2)),
    "transpose twice": lambda m, x, y, h: m.head(y.transpose(1, 2).contiguous().transpose(1, 2)),
    "axes": lambda m, x, y, h: m.head(y.unsqueeze(1).squeeze(1).clone()).to(torch.float32).detach(),
    "dropout": lambda m, x, y, h: m.head(nn.functional.dropout(y, 0.5, m.training)),
    "index": lambda m, x, y, h: m.small(y[..., [5, 0, 2]]),
    "all states": lambda m, x, y, h: m.head(torch.cat([h[0], h[-1]], -1)[:, 3:9]),
    "states flat": lambda m, x, y, h: m.head(h.transpose(0, 1).reshape(x.shape[0], -1)[:, :6]),
}


@pytest.mark.parametrize("name", MOVEMENT)
def test_data_movement_is_free_and_exact(imported, name):
    model = imported(Around(MOVEMENT[name]), signal(3, 8, 5))
    assert not [
        op for op in model.graph.operations if not isinstance(op, Input | Gru | Linear | Last)
    ]
    model.check(signal(2, 6, 5))


def test_linear_over_groups_is_one_operation_each(imported):
    model = imported(Around(MOVEMENT["groups"]), signal(3, 8, 5))
    assert model.kinds() == ["Input", "Gru", "Linear", "Linear"]
    assert model.graph.outputs[0].shape == (-1, -1, 2, 2)


class Mlp(nn.Sequential):
    def __init__(self, act=nn.ReLU):
        torch.manual_seed(2)
        super().__init__(nn.Flatten(), nn.Linear(12, 7), act(), nn.Dropout(0.3), nn.Linear(7, 3))


@pytest.mark.parametrize("act", [nn.ReLU, nn.Sigmoid, nn.Tanh, lambda: nn.ReLU(inplace=True)])
def test_mlp_without_time(imported, act):
    """The hidden layer is rescaled and rounded twice before it becomes column inputs."""
    model = imported(Mlp(act), signal(16, 3, 4), exact=False)
    assert model.kinds() == ["Input", "Linear", "Activation", "Linear"]
    assert not model.graph.operations[0].output.per_step and model.notes["sequence"] == {}
    assert model.graph.outputs[0].shape == (-1, 3)
    (found, scale), (expected,) = model.evaluate(signal(64, 3, 4))[0], model.torch(signal(64, 3, 4))
    step = max(op.parameters.input_scale for op in model.graph.operations if isinstance(op, Linear))
    assert np.abs(found * scale - expected).max() < 2 * step
    assert (found == np.round(expected / scale)).mean() > 0.9


def test_mlp_over_time(imported):
    model = imported(nn.Sequential(*list(Mlp())[1:]), signal(2, 9, 12), sequence=1, exact=False)
    assert model.graph.operations[0].output.per_step
    assert model.graph.outputs[0].shape == (-1, -1, 3)
    model.check(signal(3, 5, 12), share=0.9, units=400)


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "tanh"])
def test_activation_of_a_state_is_exact(imported, kind):
    model = imported(Around(lambda m, x, y, h: getattr(torch, kind)(y)), signal(3, 8, 5))
    (op,) = [op for op in model.graph.operations if isinstance(op, Activation)]
    assert op.kind == kind
    model.check(signal(3, 8, 5, seed=8))


@pytest.mark.parametrize("kind", ["relu_", "sigmoid_", "tanh_"])
def test_in_place_activation_reaches_views(imported, kind):
    def function(m, x, y, h):
        z = m.head(y)
        getattr(z[..., 1:3], kind)()
        return z

    imported(Around(function), signal(3, 8, 5)).check(signal(3, 8, 5, seed=8))


def test_stacked_grus_and_a_front_layer(imported):
    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.front, self.a = nn.Linear(4, 5), nn.GRU(5, 6)
            self.b, self.head = nn.GRU(6, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x):
            y, _ = self.a(torch.relu(self.front(x)))
            y, h = self.b(y.transpose(0, 1))
            return {"scores": self.head(y[:, -1]), "state": h}

    model = imported(Stacked(), signal(7, 3, 4))
    assert model.notes["sequence"] == {"x": 0}
    assert [output.name for output in model.graph.outputs] == ["scores", "state"]
    assert model.kinds().count("Gru") == 2


def test_two_inputs_with_time_and_one_without(imported):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.gru, self.start = nn.GRU(5, 6, batch_first=True), nn.Linear(3, 6)

        def forward(self, a, b, context):
            h0 = torch.tanh(self.start(context)).unsqueeze(0)
            return self.gru(torch.cat([a, b], dim=-1), h0)

    a, b, c = signal(3, 8, 2), signal(3, 8, 3, seed=5), signal(3, 3, seed=6)
    model = imported(Two(), a, b, c)
    assert model.notes["sequence"] == {"a": 1, "b": 1}
    assert [model.inputs[n].output.per_step for n in ("a", "b", "context")] == [True, True, False]
    model.check(a, b, c)


def test_zero_initial_state_is_none(imported):
    class Zeros(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(5, 6, batch_first=True)

        def forward(self, x):
            return self.gru(x, torch.zeros(1, x.shape[0], 6))[0]

    model = imported(Zeros(), signal(3, 8, 5))
    assert model.graph.operations[-1].initial == (None,)
    model.check(signal(2, 4, 5))


def test_batch_of_one_in_the_code(imported):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(5, 6, batch_first=True)

        def forward(self, x):
            return self.gru(x, torch.zeros(1, 1, 6))[0]

    model = imported(One(), signal(1, 8, 5))
    assert model.graph.outputs[0].batch_axis is None and model.graph.outputs[0].shape == (1, -1, 6)
    model.check(signal(1, 4, 5))


def test_without_batch(imported):
    model = imported(Around(lambda m, x, y, h: (m.head(y), h)), signal(8, 5))
    assert [output.batch_axis for output in model.graph.outputs] == [None, None]
    assert model.graph.outputs[0].time_axis == 0
    model.check(signal(5, 5))


def test_inputs_with_several_scales_are_values(imported):
    """Two heads read one input at different scales: it arrives as 16 bits, at the larger scale."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(5)
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x):
            return self.a(x[:, :3]), self.b(x[:, 3:])

    x = signal(50, 6) * torch.tensor([1.0, 1, 1, 9, 9, 9])
    model = imported(Heads(), x, exact=False)
    scales = [op.parameters.input_scale for op in model.graph.operations if isinstance(op, Linear)]
    assert not model.inputs["x"].columns and model.inputs["x"].output.scale == max(scales) / 256
    (found, scale), expected = model.evaluate(x)[0], model.torch(x)[0]
    assert np.abs(found * scale - expected).max() < 2 * min(scales)


def test_input_that_is_also_an_output(imported):
    model = imported(Around(lambda m, x, y, h: (y, x)), signal(3, 8, 5))
    assert not model.inputs["x"].columns
    found = model.evaluate(signal(3, 8, 5))[1]
    assert np.abs(found[0] * found[1] - signal(3, 8, 5).numpy()).max() <= found[1] / 2 * 1.001


def test_sequence_negative_axis_and_inner_modules(imported):
    model = imported(
        nn.Sequential(Around(lambda m, x, y, h: m.head(y))), signal(3, 8, 5), sequence={"input": -2}
    )
    assert model.notes["sequence"] == {"input": 1}
    model.check(signal(3, 8, 5))


def test_time_axis_is_found_behind_a_transpose(imported):
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(6)
            self.gru = nn.GRU(5, 6)

        def forward(self, x, h0):
            return self.gru(x.permute(1, 0, 2), h0)[0].transpose(0, 1)

    x, h0 = signal(3, 8, 5), torch.tanh(signal(1, 3, 6))
    model = imported(Transposed(), x, h0)
    assert model.notes["sequence"] == {"x": 1}
    model.check(signal(3, 4, 5), h0)


def test_time_axis_is_found_among_image_axes(imported):
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(6)
            self.gru = nn.GRU(6, 4, batch_first=True)

        def forward(self, images):  # [B, C, height, width], rows are steps
            rows = images.transpose(1, 2).flatten(2)  # [B, height, C·width]
            return self.gru(rows)[1][-1]

    model = imported(Images(), signal(3, 2, 8, 3))
    assert model.notes["sequence"] == {"images": 2}
    model.check(signal(2, 2, 5, 3))


def test_fixed_batch_in_the_code(imported):
    model = imported(Around(lambda m, x, y, h: m.head(y).view(3, -1, 4)), signal(3, 8, 5))
    assert model.graph.outputs[0].shape == (-1, -1, 4)
    model.check(signal(3, 4, 5))


def test_a_layer_as_the_model():
    x = signal(3, 8, 5)
    gru = espalier.compress(nn.GRU(5, 6).eval(), espalier.Recipe(), calibration=[x])
    graph, notes = import_model(gru, x)
    assert notes["sequence"] == {"input": 0}
    assert [op.output.name for op in graph.operations] == ["input", "gru"]
    assert [output.name for output in graph.outputs] == ["output_0", "output_1"]


def test_layers_used_twice_are_two_operations(imported):
    model = imported(Around(lambda m, x, y, h: (m.head(y), m.head(h[-1]))), signal(3, 8, 5))
    names = [op.output.name for op in model.graph.operations]
    assert names == ["x", "gru", "head", "head.1"]
    model.check(signal(3, 8, 5))


def test_what_does_not_change_with_time_is_computed_once(imported):
    class Context(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.gru, self.extra = nn.GRU(8, 6, batch_first=True), nn.Linear(2, 3)

        def forward(self, x, context):
            extra = self.extra(context).unsqueeze(1).expand(-1, x.shape[1], -1)
            return self.gru(torch.relu(torch.cat([x, extra], -1)))[0]

    x, context = signal(3, 8, 5), signal(3, 2)
    model = imported(Context(), x, context)
    assert model.notes["sequence"] == {"x": 1}
    relus = [op for op in model.graph.operations if isinstance(op, Activation)]
    assert [relu.output.per_step for relu in relus] == [True, False]
    model.check(x, context, share=0.9, units=2**11)
