"""Weights of any module: found, pruned, rounded and trained where they are."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from espalier.compression import Compressor, Recipe, compress
from espalier.compression.masking import weight_matrices
from espalier.compression.patterns import ColumnBalanced, Heads
from espalier.errors import InputError, RecipeError
from espalier.spec.config import TINY


class Conv1D(nn.Module):
    """As Hugging Face has it: y = x·weight + bias, weight [inputs, outputs]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = (
            nn.Parameter(torch.randn(nx, nf) / nx),
            nn.Parameter(torch.ones(nf)),
        )

    def forward(self, x):
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], self.nf)


class Reader(nn.Module):
    """One of each kind; the last layer shares the embedding's table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(12, 16)
        self.gru = nn.GRU(16, 8, 2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.down = Conv1D(16, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.filter = nn.Conv1d(16, 16, 3, padding=1)
        self.scores = nn.Linear(16, 12)
        self.scores.weight = self.table.weight

    def forward(self, ids):
        x, _ = self.gru(self.table(ids))
        x = self.down(self.lstm(x)[0])
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.scores(self.filter(self.block(x).mT).mT)


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return Reader().eval()


IDS = torch.randint(0, 12, (3, 7), generator=torch.Generator().manual_seed(0))
GRU = [f"gru.weight_{p}_l{n}{d}" for n in (0, 1) for d in ("", "_reverse") for p in ("ih", "hh")]
NAMES = {
    **dict.fromkeys(GRU, 3),
    **{"lstm.weight_ih_l0": 4, "lstm.weight_hh_l0": 4},
    **{"down.weight": 1, "attention.in_proj_weight": 3, "attention.out_proj.weight": 1},
    **{"block.self_attn.in_proj_weight": 3, "block.self_attn.out_proj.weight": 1},
    **{"block.linear1.weight": 1, "block.linear2.weight": 1, "filter.weight": 1},
}


def test_every_matrix_is_found_with_its_blocks(reader):
    found = {f"{f.path}.{f.name}": f.blocks for f in weight_matrices(reader)}
    assert found == NAMES
    projected = {f.name: f.blocks for f in weight_matrices(nn.LSTM(8, 8, proj_size=4))}
    assert projected == {"weight_ih_l0": 4, "weight_hh_l0": 4, "weight_hr_l0": 1}
    with_tables = [f"{f.path}.{f.name}" for f in weight_matrices(reader, embeddings=True)]
    assert with_tables == ["table.weight", *NAMES]


def wishes(**changes):
    given = {"density": 0.25, "allocation": "uniform", "arithmetic": "float", "config": TINY}
    return Recipe(**given | changes)


def test_pruned_weights_are_zero_in_the_users_own_classes(reader):
    before = copy.deepcopy(reader.state_dict())
    small = compress(reader, wishes(), calibration=[IDS])
    assert type(small) is Reader and set(small.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())
    report = {m.name: m for m in small.espalier_report.matrices}
    assert report.keys() == NAMES.keys()
    for name, value in small.state_dict().items():
        if name in NAMES:
            assert int((value != 0).sum()) == report[name].kept < 0.3 * value.numel()
        else:
            assert torch.equal(value, before[name])
    assert "in all" in str(small.espalier_report)


def test_the_pattern_is_that_of_outputs_and_inputs_in_every_layout(reader):
    """Conv1D stores inputs first; a filter's inputs are flattened; gates are patterns apart."""
    small = compress(reader, wishes(), calibration=[IDS])
    matrices = [
        small.down.weight.T,
        small.filter.weight.flatten(1),
        *small.gru.weight_hh_l1.chunk(3),
        *small.attention.in_proj_weight.chunk(3),
    ]
    for matrix in matrices:
        kept = (matrix != 0).view(-1, 4, matrix.shape[1]).sum(0)  # [lanes, columns]
        assert (kept == kept[0]).all()


def test_a_mask_in_force_is_what_the_module_computes_with(reader):
    """Zeroing by parametrization equals zeroing by hand, in every kind of module."""
    compressor = Compressor(reader, wishes(), 0)
    masked = compressor.model(IDS)
    byhand = copy.deepcopy(reader)
    for weight in compressor.run.weights:
        module, _, name = weight.name.rpartition(".")
        parameter = getattr(byhand.get_submodule(module), name)
        parameter.data *= weight.like_parameter(weight.mask)
    assert torch.allclose(masked, byhand(IDS), atol=1e-6)
    assert not torch.allclose(masked, reader(IDS), atol=1e-2)
    assert torch.allclose(compressor.finish()(IDS), masked, atol=1e-6)


def test_weights_arithmetic_rounds_each_row_to_its_levels(reader):
    small = compress(
        reader, wishes(density=1.0, arithmetic="weights", weight_bits=4), calibration=[IDS]
    )
    for matrix in (small.down.weight.T, small.attention.in_proj_weight, small.gru.weight_ih_l0):
        for row in matrix.detach():
            step = row.abs()[row != 0].min()
            levels = row / step
            whole = min(
                float((levels * k - (levels * k).round()).abs().max()) for k in (1, 2, 3, 4, 5, 6)
            )
            assert whole < 1e-3 and len(row.unique()) <= 15
    error = [
        compress(
            reader, wishes(density=1.0, arithmetic="weights", weight_bits=b), calibration=[IDS]
        )
        for b in (4, 8)
    ]
    four, eight = (float((m(IDS) - reader(IDS)).detach().norm()) for m in error)
    assert eight < 0.2 * four


def test_a_shared_table_stays_shared(reader):
    small = compress(reader, wishes(embeddings=True, pattern="fine-grained"), calibration=[IDS])
    assert small.scores.weight is small.table.weight
    assert int((small.table.weight != 0).sum()) == 12 * 16 // 4


def test_training_reaches_every_matrix(reader):
    target = IDS.roll(1, 1)

    def loss(model, batch):
        return functional.cross_entropy(model(batch).flatten(0, 1), target.flatten())

    reader.requires_grad_(True)
    losses = []
    small = compress(
        reader, wishes(updates=5, distillation=0.2), batches=[IDS] * 60, loss=loss,
        learning_rate=2e-2,
        progress=lambda done, total, value: losses.append(value),
    )  # fmt: skip
    assert losses[-1] < 0.9 * max(losses[:5])
    for name in NAMES:
        assert not torch.equal(small.state_dict()[name], reader.state_dict()[name])
    assert small.espalier_report.density == pytest.approx(0.25, abs=0.01)


def test_patterns_by_name_of_the_matrix(reader):
    layers = {
        "attention": {"pattern": Heads(4), "density": 0.5},
        "attention.out_proj": {"pattern": Heads(4, inputs=True)},
        "block": {"density": 1.0},
        "gru": {"pattern": ColumnBalanced(lanes=2)},
    }
    small = compress(reader, wishes(layers=layers), calibration=[IDS])
    report = {m.name: m for m in small.espalier_report.matrices}
    assert report["block.linear1.weight"].density == 1
    assert report["attention.in_proj_weight"].pattern == "heads"
    whole = (small.attention.in_proj_weight != 0).all(1).view(3, 4, 4)  # q k v, head, element
    assert torch.equal(whole[0], whole[1]) and whole[0].sum(1).tolist().count(4) == 2
    assert report["gru.weight_hh_l1"].entries > report["gru.weight_hh_l1"].kept
    assert "gru.weight_hh_l1: the pattern (column-balanced) does not fit 4 lanes" in str(
        small.espalier_report
    )


def test_padding_is_what_the_fullest_lane_costs():
    """Four rows, two lanes of TINY's four rows each... one column: rows 0 and 4 share lane 0."""
    layer = nn.Linear(1, 8, bias=False)
    layer.weight.data = torch.tensor([[9.0, 1, 1, 1, 8, 1, 1, 1]]).T
    small = compress(
        layer, wishes(pattern="fine-grained"), calibration=[torch.ones(1, 1)]
    ).espalier_report
    assert (small.matrices[0].kept, small.matrices[0].entries) == (2, 8)
    assert small.matrices[0].padding == 0.75


def test_what_cannot_be_masked_is_refused(reader):
    with pytest.raises(RecipeError, match="must have weight matrices; it has: Sequential, Tanh"):
        compress(nn.Sequential(nn.Tanh()), wishes(), calibration=[torch.ones(1)])
    with pytest.raises(RecipeError, match="matches no matrix; the model has: gru"):
        compress(reader, wishes(layers={"tail": {}}), calibration=[IDS])
    reader.down.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"'down\.weight' contains NaN"):
        compress(reader, wishes(), calibration=[IDS])
