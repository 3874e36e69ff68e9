"""Compression of whole models: at once, trained, resumed, in one's own loop, exported."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional

import espalier
from espalier.compression import Compressor, Recipe, compress
from espalier.errors import InputError, RecipeError
from espalier.quantized import QuantGRU, QuantLinear
from espalier.quantized.arithmetic import grid_scale
from espalier.spec.config import TINY

torch.set_num_threads(1)
DENSE = Recipe(density=1.0, weight_bits=8)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"rnn": nn.GRU(6, 20, batch_first=True)})
        self.hidden = nn.Linear(20, 12)
        self.head = nn.Linear(12, 4)
        self.dropout = nn.Dropout(0.1)

    def forward(self, sequence, state=None):
        y, _ = self.inner["rnn"](sequence, state)
        return self.head(self.dropout(functional.relu(self.hidden(y[:, -1]))))


def make_model():
    torch.manual_seed(0)
    return Model().eval()


def make_batches(count=4, size=16):
    """A toy task: which quarter of the features has the largest sum over time."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, size, 5, 6, generator=generator)
    return [(part, part.sum(1)[:, :4].argmax(1)) for part in x]


def toy_loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


CALIBRATION = [batch[0] for batch in make_batches()]


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_dense_eight_bits_is_close_and_the_original_untouched():
    model = make_model()
    before, kinds = snapshot(model), [type(m) for m in model.modules()]
    small = espalier.compress(model, DENSE, calibration=CALIBRATION)
    x = CALIBRATION[0]
    # Relative to the largest output: three layers of 8-bit steps (1/255) add up to about 1 %.
    assert (small(x) - model(x)).abs().max() < 0.02 * model(x).abs().max()
    assert same(snapshot(model), before) and [type(m) for m in model.modules()] == kinds
    assert not small.training and small.espalier_report.density == 1.0
    assert isinstance(small, Model)
    assert inspect.signature(small.forward) == inspect.signature(model.forward)
    assert set(before) < set(small.state_dict())


def test_report_has_requested_and_achieved_density():
    recipe = Recipe(layers={"head": {"density": 1.0, "weight_bits": 8}}, config=TINY)
    small = compress(make_model(), recipe, calibration=CALIBRATION)
    report = small.espalier_report
    assert [m.name for m in report.matrices] == [
        "inner.rnn.weight_ih_l0", "inner.rnn.weight_hh_l0", "hidden.weight", "head.weight",
    ]  # fmt: skip
    for matrix in report.matrices:
        gates = 3 if "rnn" in matrix.name else 1
        assert abs(matrix.kept - matrix.requested_density * matrix.size) <= gates * TINY.lanes / 2
    kept = sum(int((p != 0).sum()) for n, p in small.named_parameters() if "weight" in n)
    assert sum(m.kept for m in report.matrices) == kept
    assert report.density == kept / report.size
    assert report.matrices[-1].weight_bytes == 48 * 2 * 10 // 8
    assert "inner.rnn.weight_hh_l0" in str(report) and "in all" in str(report)


def test_scales_follow_what_feeds_what():
    small = compress(make_model(), DENSE, calibration=CALIBRATION)
    assert float(small.hidden.input_scale) == 2.0**-7
    assert float(small.hidden.output_scale) == float(small.head.input_scale) / 256
    assert float(small.inner["rnn"].input_scale) >= max(x.abs().max() for x in CALIBRATION) / 127


@pytest.mark.parametrize(
    "forward, expected",
    [
        (lambda m, x: torch.sigmoid(m.a(x)), 2.0**-12),
        (lambda m, x: m.b(m.a(x).tanh()), 2.0**-13),
        (lambda m, x: m.b(torch.cat([m.a(x)[:, :2], m.a(x)[:, 2:]], dim=1)), "b"),
        (lambda m, x: m.b(torch.relu(m.a(x)).view(-1, 4)), "b"),
        (lambda m, x: (m.a(x), m.a(x).tanh()), "own"),
        (lambda m, x: (m.a(x).sigmoid(), m.a(x).tanh()), "own"),
        (lambda m, x: m.a(x), "own"),
    ],
)
def test_output_scale_is_what_the_only_use_needs(forward, expected):
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.c = nn.Linear(4, 1)

        def forward(self, x):
            y = forward(self, x)
            self.c(x), self.b(x)  # every layer must be reached
            return y

    torch.manual_seed(0)
    model, x = Chain(), torch.randn(50, 4) * 8
    largest = model.a(x).detach().abs().max().item()
    assert largest > 4  # beyond tanh's table
    small = compress(model, DENSE, calibration=x)
    wanted = {"b": float(small.b.input_scale) / 256, "own": grid_scale(2 * largest / 32767)}
    assert float(small.a.output_scale) == wanted.get(expected, expected)


def test_training_lowers_the_loss_and_reaches_the_density():
    model, batches = make_model(), make_batches()
    recipe = Recipe(density=0.25, config=TINY)
    at_once = compress(model, recipe, calibration=CALIBRATION)
    losses = []
    trained = compress(
        model, recipe, batches=batches, loss=toy_loss, epochs=40, learning_rate=1e-2,
        progress=lambda done, total, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == 160
    before, after = (sum(toy_loss(m, b).item() for b in batches) for m in (at_once, trained))
    assert after < 0.5 * before
    assert trained.espalier_report.density == at_once.espalier_report.density
    for name, weight in trained.inner["rnn"].matrices().items():
        assert not weight[~trained.inner["rnn"].mask(name)].any()


def test_a_result_is_kept_by_its_state_dict():
    recipe = Recipe(density=0.25, config=TINY)
    trained = compress(make_model(), recipe, batches=make_batches(), loss=toy_loss)
    restored = compress(make_model(), recipe, calibration=CALIBRATION)
    x = CALIBRATION[1]
    assert not torch.equal(restored(x), trained(x))
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored(x), trained(x))
    weights = [m.head.integer().matrix.weight for m in (restored, trained)]
    assert (weights[0] == weights[1]).all()


def make_loader():
    data = [(x, y) for batch in make_batches() for x, y in zip(*batch, strict=True)]
    return torch.utils.data.DataLoader(data, batch_size=13, shuffle=True)


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, stop):
    options = {"batches": make_loader(), "epochs": 3, "checkpoint_every": 1}
    recipe = Recipe(density=0.25, config=TINY, updates=4, distillation=0.3)

    class Stop(Exception):
        pass

    def interrupt(done, total, loss):
        if done == stop:
            raise Stop

    torch.manual_seed(1)
    whole = compress(make_model(), recipe, loss=toy_loss, **options)
    torch.manual_seed(1)
    options["checkpoint"] = tmp_path / "run.pt"
    model = make_model()
    with pytest.raises(Stop):
        compress(model, recipe, loss=toy_loss, progress=interrupt, **options)
    torch.manual_seed(99)
    resumed = compress(model, recipe, loss=toy_loss, **options)
    assert same(whole.state_dict(), resumed.state_dict())
    again = compress(model, recipe, loss=toy_loss, **options)
    assert same(again.state_dict(), resumed.state_dict())
    with pytest.raises(RecipeError, match="must belong to the same recipe"):
        compress(model, Recipe(), loss=toy_loss, **options)
    options["checkpoint"].write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="a checkpoint must be whole"):
        compress(model, recipe, loss=toy_loss, **options)


def train(compressor, optimizer, batches):
    for x, y in batches:
        outputs = compressor.model(x)
        loss = compressor.loss(functional.cross_entropy(outputs, y), x, outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        compressor.step()


def test_own_loop_and_its_state(tmp_path):
    recipe = Recipe(density=0.25, config=TINY, updates=3, distillation=0.5)
    batches = make_batches(8)
    compressors = [Compressor(make_model(), recipe, 8) for _ in range(2)]
    optimizers = [torch.optim.SGD(c.model.parameters(), lr=0.1) for c in compressors]
    train(compressors[0], optimizers[0], batches[:3])
    torch.save(compressors[0].state_dict(), tmp_path / "state.pt")
    train(compressors[0], optimizers[0], batches[3:])
    compressors[1].load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert compressors[1].steps == 3
    train(compressors[1], optimizers[1], batches[3:])
    assert compressors[0].report().density == pytest.approx(0.25, abs=0.02)
    first, second = (compressor.finish() for compressor in compressors)
    assert same(first.state_dict(), second.state_dict())


def test_schedule_is_cubic_until_prune_end():
    compressor = Compressor(make_model(), Recipe(density=0.2, prune_end=0.5), 100)
    assert compressor.density(0.2) == 1.0
    compressor.steps = 25
    assert compressor.density(0.2) == pytest.approx(0.2 + 0.8 / 8)
    compressor.steps = 50
    assert compressor.density(0.2) == 0.2


def test_distillation_is_zero_for_equal_outputs_and_mixes_otherwise():
    model, x = make_model(), CALIBRATION[0]
    compressor = Compressor(model, Recipe(distillation=0.25), 10)
    task = torch.tensor(2.0)
    assert compressor.loss(task, x, model(x)).item() == pytest.approx(1.5, abs=1e-5)
    assert compressor.loss(task, (x,), model(x) + torch.arange(4)).item() > 1.6
    assert Compressor(model, Recipe(), 10).loss(task, x, model(x)) is task


def test_thresholds_and_delta_reach_the_cells():
    recipe = Recipe(density=1.0, delta_threshold=2, layers={"*hh*": {"delta_threshold": 5}})
    cell = compress(make_model(), recipe, calibration=CALIBRATION).inner["rnn"].integer()[0][0]
    assert (cell.input_threshold, cell.hidden_threshold, cell.delta) == (2, 5, True)
    plain = compress(make_model(), Recipe(delta=False), calibration=CALIBRATION)
    assert not plain.inner["rnn"].integer()[0][0].delta


def test_exported_graph_has_exactly_the_models_operations():
    small = compress(make_model(), Recipe(), calibration=CALIBRATION)
    time = torch.export.Dim("time")
    program = torch.export.export(
        small, (CALIBRATION[0][:1],), dynamic_shapes={"sequence": {1: time}}
    )
    calls = [n for n in program.graph.nodes if n.op == "call_function" and n.name[:7] != "getitem"]
    assert [str(node.target) for node in calls] == [
        "espalier.gru.default", "aten.select.int", "espalier.linear.default", "aten.relu.default",
        "aten.dropout.default", "espalier.linear.default",
    ]  # fmt: skip
    paths = [calls[0].args[2], calls[2].args[1], calls[5].args[1]]
    assert paths == ["inner.rnn", "hidden", "head"]
    modules = [small.get_submodule(path) for path in paths]
    assert [type(m) for m in modules] == [QuantGRU, QuantLinear, QuantLinear]
    assert len(program.graph.find_nodes(op="placeholder", target="sequence")) == 1
    assert not isinstance(calls[0].meta["val"][0].shape[1], int)


def test_activations_of_a_compressed_model_are_the_tables():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 3), nn.Tanh())
    small = compress(model, DENSE, calibration=torch.randn(20, 3))
    y = small(torch.randn(9, 3))
    assert torch.equal(y * 2**15, (y * 2**15).round())
    assert float(small[2].input_scale) == 2.0**-7
    assert small[0].path == "0" and copy.deepcopy(small)(torch.zeros(1, 3)).shape == (1, 3)


def test_a_lone_layer_and_a_layer_used_twice():
    gru = compress(nn.GRU(3, 8), DENSE, calibration=torch.randn(5, 2, 3))
    assert (
        isinstance(gru, QuantGRU) and gru.path == "" and gru(torch.randn(4, 3))[0].shape == (4, 8)
    )
    shared = nn.Linear(4, 4)
    small = compress(nn.Sequential(shared, nn.ReLU(), shared), DENSE, calibration=torch.randn(9, 4))
    assert small[0] is small[2] and len(small.espalier_report.matrices) == 1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"calibration": []}, InputError, "calibration must have at least one batch"),
        ({"calibration": ["text"]}, InputError, "a calibration batch must be a tensor or a tuple"),
        ({"calibration": [torch.full((1, 5, 6), float("nan"))]}, InputError, "must be finite"),
        ({}, RecipeError, "compress needs calibration=batches, or batches= and loss= to train"),
        ({"batches": [1]}, RecipeError, "training needs loss="),
        ({"batches": [], "loss": toy_loss}, InputError, "at least one batch"),
        ({"batches": iter([1]), "loss": toy_loss}, RecipeError, "it is an iterator"),
        ({"batches": [1], "loss": lambda model: 0}, RecipeError, "loss must take"),
        ({"batches": [1], "loss": toy_loss, "steps": 0}, RecipeError, "steps must be an integer"),
        ({"batches": [1], "loss": lambda m, b: 3.0, "steps": 1}, InputError, "a scalar tensor"),
        ({"recipe": {"density": 1}, "calibration": CALIBRATION}, RecipeError, "an espalier.Recipe"),
        ({"recipe": Recipe(layers={"tail": {}}), "calibration": CALIBRATION}, RecipeError, "tail"),
    ],
)  # fmt: skip
def test_mistakes_are_named(options, error, message):
    with pytest.raises(error, match=message):
        compress(make_model(), options.pop("recipe", Recipe()), **options)


def test_models_that_cannot_be_compressed_are_refused():
    with pytest.raises(RecipeError, match=r"nn\.Linear or nn\.GRU .* it has: Conv1d, Seq"):
        compress(nn.Sequential(nn.Conv1d(1, 1, 1)), calibration=CALIBRATION)
    with pytest.raises(RecipeError, match=r"must be a torch.nn.Module, not function"):
        compress(lambda x: x, calibration=CALIBRATION)
    broken = make_model()
    broken.head.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"'head\.weight' contains NaN"):
        compress(broken, calibration=CALIBRATION)
    lonely = make_model()
    lonely.unused = nn.Linear(2, 2)
    with pytest.raises(InputError, match="none reaches 'unused'"):
        compress(lonely, calibration=CALIBRATION)


def test_a_loss_that_is_not_finite_stops_training():
    batches = [(torch.zeros(2, 5, 6), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(InputError, match="loss must be finite; it is nan at step 0"):
        compress(
            make_model(), batches=batches, steps=1, loss=lambda m, b: toy_loss(m, b) * float("nan")
        )
