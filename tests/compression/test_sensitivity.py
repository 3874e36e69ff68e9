"""Sensitivity tables on a model whose answers are known; budgets against brute force."""

from itertools import product

import pytest
import torch
from torch import nn

import espalier
from espalier.compression import Recipe, compress
from espalier.compression.budget import as_layers, choose, equal_density, hull, path_of_mixes
from espalier.compression.sensitivity import FLOAT, Sensitivity, load, plot, sensitivity
from espalier.errors import InputError, RecipeError
from espalier.spec.config import TINY

X = torch.eye(4)


def make_model():
    """Layer 0 has one weight that matters; layer 1 has all of one size."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[0].weight.data = torch.diag(torch.tensor([1.0, 1e-3, 1e-3, 1e-3]))
    model[1].weight.data = torch.ones(4, 4) + 0.01 * torch.arange(16.0).view(4, 4)
    return model


def measure_against(target):
    def measure(model):
        with torch.no_grad():
            error = (model(X) - target).square().mean().item()
        return {"loss": error, "accuracy": 1 - error}

    return measure


PLAIN = Recipe(pattern="fine-grained", config=TINY)


def run(model, **options):
    options = {"densities": (1.0, 1 / 4, 1 / 16), "bits": (FLOAT, 8, 4), "recipe": PLAIN} | options
    return sensitivity(model, measure_against(model(X).detach()), **options)


def test_each_row_is_one_matrix_changed_and_the_model_stays():
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = run(model)
    assert [row.key[0] for row in rows] == ["0.weight"] * 9 + ["1.weight"] * 9
    by = {row.key: row for row in rows}
    assert by["0.weight", "1", FLOAT].loss == by["1.weight", "1", FLOAT].loss == 0
    assert by["0.weight", "0.0625", FLOAT].loss < 1e-4 < by["1.weight", "0.0625", FLOAT].loss
    byhand = make_model()
    weight = byhand[1].weight.data
    weight[weight < weight.flatten().sort().values[-4]] = 0
    expected = (byhand(X) - model(X)).square().mean().item()
    assert by["1.weight", "0.25", FLOAT].loss == pytest.approx(expected)
    assert 0 < by["1.weight", "1", 8].loss < by["1.weight", "1", 4].loss
    assert by["1.weight", "0.25", 8].entries == 2 * by["1.weight", "0.25", 4].entries == 8
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_interrupted_table_continues(tmp_path):
    path = tmp_path / "table.csv"
    seen = []

    class Stop(Exception):
        pass

    def interrupt(done, total, row):
        seen.append(row.key)
        if done == 7:
            raise Stop

    whole = run(make_model())
    with pytest.raises(Stop):
        run(make_model(), table=path, progress=interrupt)
    with path.open("a") as file:
        file.write("0.weight,16,0.06")  # killed while writing
    calls = []
    model = make_model()
    measure = measure_against(model(X).detach())

    def counted(model):
        calls.append(1)
        return measure(model)

    rows = sensitivity(
        model, counted, densities=(1.0, 1 / 4, 1 / 16), bits=(FLOAT, 8, 4), recipe=PLAIN, table=path
    )
    assert len(calls) == 18 - 7 and [row.key for row in rows] == [row.key for row in whole]
    assert [row.loss for row in load(path)] == pytest.approx([r.loss for r in whole], rel=1e-4)
    plot(rows, tmp_path / "table.png", "accuracy")
    assert (tmp_path / "table.png").stat().st_size > 1000


def row(name, size, density, bits, loss):
    return Sensitivity(name=name, size=size, density=density, bits=bits, figures={"loss": loss})


def test_hull_leaves_out_what_no_best_mix_can_use():
    rows = [
        row("a", 100, 1, 4, 0.0),
        row("a", 100, 0.5, 4, 0.6),  # above the line from 100 to 25 entries
        row("a", 100, 0.25, 4, 0.3),
        row("a", 100, 0.5, 8, 0.05),  # as many entries as dense 4 bits, more loss
        row("a", 100, 0.125, 4, 1.0),
    ]
    assert [r.density for r in hull(rows)] == [1, 0.25, 0.125]
    assert hull([row("a", 8, 1, 4, 0.5), row("a", 8, 0.5, 4, 0.1)])[0].density == 0.5


def random_rows():
    generator = torch.Generator().manual_seed(1)
    rows = []
    for name, size in (("a", 64), ("b", 256), ("c", 128)):
        loss = 0.0
        for density in (1.0, 0.5, 0.25, 0.125):
            loss += float(torch.rand(1, generator=generator)) / density
            rows += [
                row(name, size, density, 4, 1.2 * loss + 0.1),
                row(name, size, density, 8, loss),
            ]
    return rows


@pytest.mark.parametrize("budget", [60, 100, 200, 350, 896])
def test_mixes_on_the_path_are_the_best_of_their_entries(budget):
    rows = random_rows()
    mixes = path_of_mixes(rows)
    chosen = choose(rows, budget)
    mix = next(m for m in mixes if as_layers(m) == chosen)
    entries, loss = (sum(getattr(r, k) for r in mix.values()) for k in ("entries", "loss"))
    choices = [[r for r in rows if r.name == name] for name in "abc"]
    best = min(
        sum(r.loss for r in every)
        for every in product(*choices)
        if sum(r.entries for r in every) <= entries
    )
    assert entries <= budget and loss == pytest.approx(best)


def test_a_budget_may_be_any_cost_and_must_be_possible():
    rows = random_rows()
    counted = []

    def cost(layers):
        counted.append(layers)
        return 1000 * layers["a"]["density"] + layers["b"]["density"]

    layers = choose(rows, 300, cost)
    assert cost(layers) <= 300 and len(counted) < 8
    assert layers["a"] == {"density": 0.25, "weight_bits": layers["a"]["weight_bits"]}
    with pytest.raises(RecipeError, match=r"budget must be at least 56, .* leanest mix, not 10"):
        choose(rows, 10)
    assert equal_density(rows, 4)[0]["entries"] == 448


def test_a_budget_of_cycles_is_the_machines_own():
    """The compiled program of the mix stays within the cycles, the next richer one does not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 8)).eval()
    x = torch.randn(64, 24)
    target = model(x).detach()
    rows = sensitivity(
        model,
        lambda m: {"loss": (m(x) - target).detach().square().mean().item()},
        densities=(1.0, 0.125),
        bits=(4,),
        recipe=Recipe(config=TINY),
    )

    known = {}

    def cycles(layers):
        if str(layers) not in known:
            small = compress(model, Recipe(layers=layers, config=TINY), calibration=[x])
            program = espalier.compile(small, x[:1], config=TINY)
            known[str(layers)] = espalier.estimate(program).cycles
        return known[str(layers)]

    mixes = [as_layers(mix) for mix in path_of_mixes(rows)]
    budget = (cycles(mixes[0]) + cycles(mixes[-1])) / 2
    layers = choose(rows, budget, cycles)
    assert cycles(layers) <= budget < cycles(mixes[mixes.index(layers) - 1])


def test_bad_figures_and_tables_are_named(tmp_path):
    with pytest.raises(InputError, match="measure must return a 'loss'; it returns accuracy"):
        sensitivity(make_model(), lambda m: {"accuracy": 1.0}, recipe=PLAIN)
    with pytest.raises(InputError, match=r"loss must be a number; it is NaN for 0\.weight at 1"):
        sensitivity(make_model(), lambda m: {"loss": float("nan")}, recipe=PLAIN)
    with pytest.raises(RecipeError, match="bits must be 4, 8 or 0 for floats, not 5"):
        run(make_model(), bits=(5,))
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"odd\.csv is no table of sensitivities"):
        load(tmp_path / "odd.csv")
