"""QuantLinear and QuantGRU: the machine's integers, torch's meaning, gradients and export."""

from itertools import chain

import pytest
import torch
from torch import nn

from espalier.errors import EspalierError, InputError
from espalier.quantized import QuantGRU, QuantLinear, TableFunctions

STATE = 2.0**-15


def make_gru(seed=0, bits=8, inputs=5, hidden=6, **options):
    """A QuantGRU with biases that matter, and its original."""
    torch.manual_seed(seed)
    gru = nn.GRU(inputs, hidden, **options)
    for name, parameter in gru.named_parameters():
        nn.init.uniform_(parameter, *((-1.5, 1.5) if name.startswith("bias") else (-0.5, 0.5)))
    quantized = QuantGRU(gru)
    for name in quantized.bit_widths:
        quantized.set_bit_width(name, bits)
    quantized.set_scales(1 / 127)
    return gru, quantized


def to_integers(real, scale):
    values = real.detach().double() / scale
    assert torch.equal(values, values.round())
    return values.long().tolist()


@pytest.mark.parametrize("bits", [4, 8])
def test_linear_is_the_machine(machine, bits):
    torch.manual_seed(bits)
    layer = QuantLinear(nn.Linear(37, 11))
    layer.set_bit_width("weight", bits)
    layer.set_scales(0.02, 0.0001)  # some results saturate, some inputs clip
    x = torch.randn(5, 37)
    y = to_integers(layer(x), float(layer.output_scale))
    assert y == [machine.linear(layer.integer(), row) for row in x]


def test_dense_eight_bit_linear_is_close_to_torch():
    torch.manual_seed(3)
    linear = nn.Linear(16, 8)
    layer = QuantLinear(linear)
    x = torch.rand(50, 16) * 2 - 1
    layer.set_scales(1 / 127, 3 / 32767)
    # Per product: half an input step times |w|, half a weight step times |x| <= 1.
    weight = linear.weight.detach().abs()
    bound = (weight / 254 + weight.amax(dim=1, keepdim=True) / 238).sum(dim=1) * 1.02 + 1e-3
    assert ((layer(x) - linear(x)).abs() <= bound).all()


SHAPES = [
    dict(),
    dict(num_layers=2, bidirectional=True),
    dict(num_layers=3, batch_first=True),
    dict(bidirectional=True, bias=False),
]


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("bits, threshold", [(8, 0), (4, 0), (4, 3)])
def test_gru_is_the_machine(machine, options, bits, threshold):
    _, gru = make_gru(bits, bits, **options)
    for name in gru.thresholds:
        gru.thresholds[name] = threshold * (2 if "hh" in name else 1)
    cells = gru.integer()
    x, h0 = torch.rand(7, 5) * 3 - 1.5, torch.rand(gru.num_layers * gru.directions, 6) * 2 - 1
    y, h_n = gru(x, h0)
    states = [machine.columns(row, gru.integer()[0][0].input_scale) for row in x]
    start = torch.floor(h0 / STATE + 0.5).long().clamp(-32768, 32767).tolist()
    finals = []
    for layer in cells:
        outputs = []
        for direction, cell in enumerate(layer):
            order = -1 if direction else 1
            run = machine.gru_cell(cell, states[::order], start[len(finals)])
            finals.append(run[-1])
            outputs.append(run[::order])
        values = [list(chain(*parts)) for parts in zip(*outputs, strict=True)]
        states = [[min((v + 128) >> 8, 127) for v in step] for step in values]
    assert to_integers(y, STATE) == values
    assert to_integers(h_n, STATE) == finals


def one_step_bound(gru):
    """Largest difference of one 8-bit step from torch's, from the same state, |x|, |h| <= 1.

    A pre-activation errs by half a column step (1/254, 1/256) times |w| and half a weight step
    times |x|; rows r, z share a step over both matrices. The table and 16-bit roundings add 1e-3.
    |sigmoid'| <= 1/4, |tanh'| <= 1, |u| <= bound of W_hn·h + b_hn, |h - n| <= 2.
    """
    w_ih, w_hh = gru.weight_ih_l0.detach().abs(), gru.weight_hh_l0.detach().abs()
    step = torch.maximum(w_ih.amax(1), w_hh.amax(1)) / 119 * 1.02
    error = (w_ih.sum(1) + w_hh.sum(1)) / 254 + step / 2 * (w_ih.shape[1] + w_hh.shape[1])
    reset, update, new = (error + 1e-3).chunk(3)
    u = w_hh.chunk(3)[2].sum(1) + gru.bias_hh_l0.detach().abs().chunk(3)[2]
    return new + reset / 4 * u + 2 * update / 4 + 1e-3


def wrong_step(gru, x, h):
    """The common mistake: the reset gate applied before b_hn is added."""
    i_r, i_z, i_n = (x @ gru.weight_ih_l0.T + gru.bias_ih_l0).chunk(3, -1)
    h_r, h_z, h_n = (h @ gru.weight_hh_l0.T).chunk(3, -1)
    b_r, b_z, b_n = gru.bias_hh_l0.chunk(3)
    r, z = torch.sigmoid(i_r + h_r + b_r), torch.sigmoid(i_z + h_z + b_z)
    n = torch.tanh(i_n + r * h_n + b_n)
    return n + z * (h - n)


@torch.no_grad()
def test_every_step_is_close_to_torch_and_the_common_mistake_is_not():
    gru, quantized = make_gru(11)
    bound = one_step_bound(gru)
    assert bound.max() < 0.2
    x, h = torch.rand(40, 5) * 2 - 1, torch.zeros(1, 6)
    mistaken = 0
    for step in x:
        exact, _ = gru(step[None], h)
        value, _ = quantized(step[None], h)
        assert ((value - exact).abs() <= bound).all()
        mistaken += ((value - wrong_step(gru, step[None], h)).abs() > bound).sum().item()
        h = exact
    assert mistaken > 20


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_gru_has_torch_shapes(options):
    gru, quantized = make_gru(**options)
    for x in (torch.rand(7, 4, 5), torch.rand(7, 5)):
        h0 = gru(x)[1]
        for expected, actual in zip(gru(x, h0), quantized(x, h0), strict=True):
            assert actual.shape == expected.shape
            assert (actual - expected).abs().mean() < 0.03


def test_threshold_zero_equals_plain_and_larger_ones_do_not():
    _, gru = make_gru()
    x = torch.rand(30, 2, 5)
    plain = gru(x)[0]
    gru.delta = False
    assert torch.equal(gru(x)[0], plain)
    gru.delta, gru.thresholds["weight_hh_l0"] = True, 8
    assert not torch.equal(gru(x)[0], plain)


def test_gradients_follow_torch():
    gru, quantized = make_gru(4, num_layers=2, bidirectional=True)
    x = torch.rand(9, 3, 5, requires_grad=True)
    mirror = x.detach().clone().requires_grad_()
    h0 = torch.zeros(4, 3, 6, requires_grad=True)
    target = torch.randn(9, 3, 12)
    ((gru(x)[0] - target) ** 2).sum().backward()
    ((quantized(mirror, h0)[0] - target) ** 2).sum().backward()
    named = dict(quantized.named_parameters())
    pairs = [(p.grad, named[name].grad) for name, p in gru.named_parameters()]
    for expected, actual in [*pairs, (x.grad, mirror.grad)]:
        assert torch.cosine_similarity(expected.flatten(), actual.flatten(), dim=0) > 0.99
    assert h0.grad.abs().max() > 0


def test_pruned_weights_count_for_nothing_and_learn_until_the_pattern_is_frozen():
    torch.manual_seed(0)
    layer = QuantLinear(nn.Linear(6, 4))
    layer.set_scales(1 / 127, 1e-4)
    layer.mask("weight")[:, 2] = False
    layer.update_scales()
    assert not layer.integer().matrix.weight[:, 2].any()
    for frozen in (True, False):
        layer.mask_frozen = frozen
        layer.zero_grad()
        layer(torch.ones(1, 6)).sum().backward()
        assert bool(layer.weight.grad[:, 2].any()) is not frozen


def test_float_mode_is_torch():
    gru, quantized = make_gru(num_layers=2)
    quantized.float_mode = True
    x = torch.rand(20, 2, 5)
    assert torch.equal(quantized(x)[0], gru(x)[0])


@pytest.mark.parametrize(
    "module, call",
    [
        (nn.Sigmoid(), nn.Sigmoid()),
        (nn.Tanh(), lambda x: x.tanh()),
        (nn.Tanh(), torch.nn.functional.tanh),
        (nn.Sigmoid(), torch.special.expit),
        (nn.Tanh(), lambda x: x.clone().tanh_()),
    ],
)
def test_activations_in_any_spelling_use_the_table(module, call):
    x = torch.randn(100)
    with TableFunctions():
        y, relu = call(x), torch.relu(x)
    assert torch.equal(y * 2**15, (y * 2**15).round())
    assert 0 < (y - module(x)).abs().max() < 1e-3
    assert torch.equal(relu, torch.relu(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = make_gru(batch_first=True)[1]
        self.head = QuantLinear(nn.Linear(6, 3))
        self.rnn.path, self.head.path = "rnn", "head"

    def forward(self, x, h=None):
        y, _ = self.rnn(x, h)
        return torch.sigmoid(self.head(torch.relu(y[:, -1])))


@pytest.mark.parametrize("state", [False, True])
def test_export_has_one_node_a_module_and_dynamic_time(state):
    model = Model().eval()
    arguments = (torch.rand(1, 9, 5), torch.rand(1, 1, 6))[: 1 + state]
    shapes = ({1: torch.export.Dim("time")}, {})[: 1 + state]
    program = torch.export.export(model, arguments, dynamic_shapes=shapes)
    calls = [
        n for n in program.graph.nodes if n.op == "call_function" and "getitem" not in str(n.target)
    ]
    assert [str(node.target) for node in calls] == [
        "espalier.gru.default", "aten.select.int", "aten.relu.default", "espalier.linear.default",
        "aten.sigmoid.default",
    ]  # fmt: skip
    assert calls[0].args[2] == "rnn" and calls[3].args[1] == "head"
    assert not isinstance(calls[0].meta["val"][0].shape[1], int)
    assert (calls[0].args[1] is None) is not state
    with pytest.raises(EspalierError, match="call the model itself"):
        program.module()(*arguments)


def test_mistakes_are_named():
    _, gru = make_gru()
    with pytest.raises(
        InputError, match=r"must have 2 or 3 dimensions, the last of 5; not \(2, 4\)"
    ):
        gru(torch.rand(2, 4))
    with pytest.raises(InputError, match=r"initial state must be \(1, 2, 6\), not \(1, 6\)"):
        gru(torch.rand(3, 2, 5), torch.rand(1, 6))
    with pytest.raises(InputError, match="PackedSequence"):
        gru(nn.utils.rnn.pack_sequence([torch.rand(3, 5)]))
    with pytest.raises(InputError, match="at least one time step"):
        gru(torch.rand(0, 5))
    for bad in (torch.nan, torch.inf):
        with pytest.raises(InputError, match="values must be finite"):
            gru(torch.full((2, 5), bad))
        with pytest.raises(InputError, match="values must be finite"):
            gru(torch.rand(2, 5), torch.full((1, 6), bad))
    with pytest.raises(ValueError, match="must be one of"):
        gru.set_bit_width("weight_ih_l0", 5)
    with pytest.raises(EspalierError, match="no input_scale yet"):
        QuantLinear(nn.Linear(2, 2))(torch.rand(1, 2))
