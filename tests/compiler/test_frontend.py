"""espalier.compile's checks and errors: each names the rule, the value and the user's line."""

import linecache

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import espalier
from espalier.compiler.frontend import import_model
from espalier.errors import InputError, UnsupportedModelError
from espalier.program import Program
from espalier.quantized import QuantGRU, QuantLinear
from espalier.spec.config import SMALL, TINY

X = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.gru, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 4)


@pytest.fixture
def refusal(quantize):
    """refusal(model, *args): the message, and the user's code that it names."""

    def refused(model, *args, **options):
        args = args or (X,)
        with pytest.raises(UnsupportedModelError) as caught:
            import_model(quantize(model, *args), args, **options)
        message = str(caught.value)
        lines = []
        for place in (part for part in message.split("\n") if part.startswith("    at ")):
            file, number, _ = place.removeprefix("    at ").split(":", 2)
            assert file == __file__
            lines.append(linecache.getline(file, int(number)).strip())
        return message, lines

    return refused


class View(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        z = self.head(y)
        return z.view(x.shape[0], 8 * 4)  # fixed


class Select(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(y[:, 5])  # fixed


class First(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(y[:, 0])  # fixed


class ExactlyLast(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(y[:, 10])  # fixed: the last of eleven steps


class Shift(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(torch.cat([y[:, 1:], y[:, :1]], dim=1))  # fixed


class Loop(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        return torch.stack([self.head(y[:, t]) for t in range(x.shape[1])], dim=1)  # fixed


class Branch(Net):
    def forward(self, x):
        if x.shape[1] > 5:  # fixed
            x = x[..., [1, 0, 2, 3, 4]]
        return self.gru(x)[0]


class Equal(Net):
    def forward(self, x):
        if x.shape[1] == 8:  # fixed
            x = x[..., [1, 0, 2, 3, 4]]
        return self.gru(x)[0]


class Flattened(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8 * 6, 2)

    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(y.flatten(1))  # fixed


class OverTime(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(y.transpose(1, 2))  # fixed


class Half(Net):
    def forward(self, x):
        y, _ = self.gru(x)
        return self.head(y[:, : x.shape[1] // 2])  # fixed


@pytest.mark.parametrize(
    "model", [View, Select, First, Shift, Loop, Branch, Equal, Flattened, OverTime, Half]
)
def test_fixed_length_is_named(refusal, model):
    message, lines = refusal(model())
    assert lines and all("# fixed" in line for line in lines)
    assert "length" in message or "11 time steps" in message or "time axis" in message


def test_fixed_length_that_is_the_last_of_the_walk(refusal):
    """y[:, 10] is the last of the eleven steps that the importer uses: seen all the same."""
    message, lines = refusal(ExactlyLast(), torch.randn(2, 20, 5))
    assert lines == ["return self.head(y[:, 10])  # fixed: the last of eleven steps"]
    assert "fixed length" in message


def test_all_unsupported_operators_at_once(refusal):
    class Several(Net):
        def forward(self, x):
            y, _ = self.gru(x)
            pooled = y.mean(dim=1)  # mean
            scores = torch.softmax(self.head(pooled), dim=-1)  # softmax
            return scores * 2  # mul

    message, lines = refusal(Several())
    assert [line.split("# ")[1] for line in lines] == ["mean", "softmax", "mul"]
    for name in (
        "aten.mean",
        "aten.softmax",
        "aten.mul",
        "supported are",
        "nn.GRU",
        "use the last time step",
    ):
        assert name in message


def test_other_layers_are_unsupported_operators(refusal):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.weight = nn.LSTM(5, 4), nn.Parameter(torch.ones(3, 4))

        def forward(self, x):
            y, _ = self.lstm(x)  # lstm
            return nn.functional.linear(y, self.weight)  # linear

    message, lines = refusal(Other(), sequence=0)
    assert [line.split("# ")[1] for line in lines] == ["lstm", "linear"]
    assert "use nn.GRU" in message and "only nn.Linear modules" in message


def test_data_dependent_branch(refusal):
    class Dependent(Net):
        def forward(self, x):
            if x.sum() > 0:  # here
                x = x[..., [1, 0, 2, 3, 4]]
            return self.gru(x)[0]

    message, lines = refusal(Dependent())
    assert "depends on the inputs' values" in message and lines == ["if x.sum() > 0:  # here"]


def test_packed_sequence_gets_advice(refusal):
    class Packed(Net):
        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True)
            y, _ = self.gru(packed)  # pack
            return self.head(pad_packed_sequence(y, batch_first=True)[0])

    model = Packed()
    with pytest.raises(InputError, match="float tensor"):
        import_model(model.eval(), (X, torch.tensor([8, 5, 2])))
    with pytest.raises(UnsupportedModelError, match=r"packed sequences.*lengths="):
        import_model(model.eval(), (X, [8, 5, 2]))
    model.gru, model.head = QuantGRU(model.gru), QuantLinear(model.head)
    with pytest.raises(UnsupportedModelError, match=r"packed sequences.*lengths=(.|\n)*# pack"):
        import_model(model.eval(), (X, [8, 5, 2]))


def test_training_mode_and_part_of_a_model():
    with pytest.raises(UnsupportedModelError, match=r"training mode.*model.eval\(\)"):
        import_model(Last().train(), X)

    compressed = espalier.compress(Last(), espalier.Recipe(), calibration=[X])
    mixed = nn.Sequential(compressed, nn.Linear(4, 2)).eval()
    with pytest.raises(UnsupportedModelError, match="some layers are compressed"):
        import_model(mixed, X)


def test_functional_dropout_in_training(refusal):
    class Dropping(Net):
        def forward(self, x):
            return nn.functional.dropout(self.gru(x)[0])  # drop

    message, lines = refusal(Dropping())
    assert "training=True" in message and "# drop" in lines[0]


class Last(Net):
    def forward(self, x, h0=None):
        return self.head(self.gru(x, h0)[0][:, -1])


@pytest.mark.parametrize(
    "args,options,message",
    [
        ((X, X, X), {}, "do not fit the model's forward"),
        (X, {"sequence": {"y": 1}}, "names 'y'.*'x'"),
        (X, {"sequence": {"x": 3}}, r"in 0..2, not 3"),
        ((X, torch.zeros(1, 3, 6)), {"sequence": 1}, "must name the inputs"),
        ((X, torch.zeros(1, 2, 6)), {}, "initial state must be"),
        (X.long(), {}, "float tensor"),
        (X[:0], {}, "non-empty"),
        ((), {"kwargs": {"x": [X]}}, "must be a tensor, not a list"),
        (X * float("nan"), {}, "finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments(args, options, message):
    with pytest.raises(InputError, match=message):
        import_model(Last().eval(), args, **options)


def test_gru_over_another_axis_asks_for_sequence():
    with pytest.raises(UnsupportedModelError, match="time axis; name it with sequence"):
        import_model(Last().eval(), X, sequence={"x": 2})


@pytest.mark.parametrize("wrong", ["squeeze()", "squeeze(0)"])
def test_squeezing_the_batch_is_refused(refusal, wrong):
    class Squeezing(Net):
        def forward(self, x):
            y, _ = self.gru(x)
            return y.squeeze() if wrong == "squeeze()" else y.squeeze(0)  # squeeze

    message, lines = refusal(Squeezing(), X[:1])
    assert "squeezes the batch" in message and "# squeeze" in lines[0]


def test_parameters_and_constants_are_no_values(refusal):
    class Learned(Net):
        def __init__(self):
            super().__init__()
            self.h0 = nn.Parameter(torch.zeros(1, 1, 6))

        def forward(self, x):
            y, _ = self.gru(x, self.h0.expand(-1, x.shape[0], -1))  # state
            return torch.cat([y, torch.zeros_like(y)], dim=-1)  # zeros

    message, lines = refusal(Learned())
    assert "'h0' as a value" in message.replace("p_h0", "h0") and "# state" in lines[0]


def test_constant_outputs_are_refused(refusal):
    class Padded(Net):
        def forward(self, x):
            y, _ = self.gru(x)
            return torch.cat([y, torch.zeros_like(y)], dim=-1)

    assert "takes a constant" in refusal(Padded())[0]


def test_in_place_on_the_last_step_is_refused(refusal):
    class InPlace(Net):
        def forward(self, x):
            y, _ = self.gru(x)
            y[:, -1].relu_()  # in place
            return y

    message, lines = refusal(InPlace())
    assert "in place on the last time step" in message and "# in place" in lines[0]


@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda config: config.name)
def test_compile_quantizes_and_notes_it(config):
    program = espalier.compile(Last().eval(), X, config=config, max_length=50)
    assert isinstance(program, Program) and program.config is config
    assert [port.name for port in program.inputs] == ["x"]
    assert program.outputs[0].shape == (-1, 4)
    assert program.notes["quantized_by_compile"] is True
    assert program.notes["max_length"] == 50 and program.notes["sequence"] == {"x": 1}


def test_compile_leaves_the_model_alone_and_takes_compressed_ones(tmp_path):
    model = Last().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = espalier.compress(model, espalier.Recipe(density=0.5, weight_bits=8), calibration=[X])
    program = espalier.compile(small, X, {"h0": torch.zeros(1, 3, 6)}, config=TINY)
    assert program.notes["quantized_by_compile"] is False
    assert program.notes["requested_density"] == 0.5
    state = next(port for port in program.inputs if port.name == "h0")
    assert state.optional and state.scale == 2**-15
    assert Program.load(program.save(tmp_path / "last.espalier")).notes == program.notes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
