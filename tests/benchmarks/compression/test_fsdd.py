"""The study on a data set of tones: splits, batches, runs, and every command."""

import csv
from dataclasses import replace

import fsdd
import fsdd_compare
import fsdd_model
import fsdd_settings
import numpy as np
import pytest
import torch
from fsdd_data import Batches, DataError, load, masks, read
from fsdd_model import SpeechReader
from fsdd_settings import Setting, accelerator

torch.set_num_threads(1)


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def quick(seed):
    return [Setting(density=1 / 4, epochs=1, seed=seed, batch=16)]


def test_official_split_is_by_takes(data):
    training, validation, test = masks(load(data), "official")
    take = load(data)["take"]
    assert set(take[test]) == set(range(5)) and set(take[validation]) == set(range(5, 10))
    assert set(take[training]) == {10, 11, 12}
    assert (training.astype(int) + validation + test == 1).all()


def test_a_speaker_is_left_out_altogether(data):
    training, validation, test = masks(load(data), "jackson")
    speaker = load(data)["speaker"]
    assert (speaker[test] == 1).all() and test.sum() == (speaker == 1).sum()
    assert (speaker[training] == 0).all() and (speaker[validation] == 0).all()
    with pytest.raises(DataError, match=r"official or a speaker \(george, .*not 'nobody'"):
        masks(load(data), "nobody")


def test_features_are_scaled_by_the_training_recordings(data):
    split = read(data)
    frames = torch.cat(split.training.features)
    assert frames.mean(0).abs().max() < 1e-3
    assert (frames.std(0) - 1).abs().max() < 1e-2
    assert len(split.training) == len(split.validation) * 3 // 5 == len(split.test) * 3 // 5


def test_batches_have_every_recording_once_and_follow_the_seed(data):
    training = read(data).training
    batches = Batches(training, 16)
    orders = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        orders.append([(x.shape, digits.tolist()) for x, _, digits in batches])
    assert orders[0] == orders[1] != orders[2]
    assert len(orders[0]) == len(batches)
    assert sum(len(d) for _, d in orders[0]) == len(training)
    x, lengths, _ = next(iter(batches))
    assert x.shape[1] == lengths.max() and not x[lengths.argmin(), lengths.min() :].any()


@torch.no_grad()
def test_padding_does_not_change_scores(data):
    test, model = read(data).test, SpeechReader(hidden=8).eval()
    x, lengths, _ = test.padded(torch.arange(7))
    alone = torch.cat([model(test.features[i][None]) for i in range(7)])
    assert torch.allclose(model(x, lengths), alone, atol=1e-6)


def test_density_is_that_of_the_whole_model():
    for density in fsdd_settings.DENSITIES:
        recipe = Setting(density=density).recipe()
        head = recipe.matrix("head", "weight").density * fsdd_settings.HEAD_WEIGHTS
        kept = recipe.density * fsdd_settings.GRU_WEIGHTS + head
        weights = sum(p.numel() for p in SpeechReader().parameters() if p.dim() == 2)
        assert kept == pytest.approx(density * weights)


@pytest.mark.parametrize("lanes", fsdd_settings.LANES)
def test_lanes_of_an_array_are_dealt_anew(lanes):
    config = accelerator(lanes)
    assert config.lanes == lanes and 240 <= config.total_lanes <= 256


def test_settings_of_a_table_differ_in_keys_and_names():
    settings = [s for table in fsdd_settings.TABLES.values() for s in table(0)]
    assert len({str(s) for s in settings}) == len(set(settings))


def test_what_differs_in_one_thing_is_compared():
    chosen, plain = Setting(density=1 / 16), Setting(density=1 / 16, pattern="uniform-k")
    fine, other = Setting(density=1 / 16, pattern="fine-grained"), Setting(density=1 / 4)
    wide = replace(chosen, lanes=64)
    settings = [chosen, plain, fine, other, wide, chosen.dense]
    found = set(fsdd_compare.pairs(settings))
    assert found == {(s, chosen.dense) for s in settings if s != chosen.dense} | {
        (chosen, fine), (plain, fine), (wide, fine), (plain, chosen), (wide, chosen)
    }  # fmt: skip


@pytest.mark.slow
def test_study_runs_compares_plots_and_compiles(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(fsdd_settings.TABLES, "baseline", quick)
    monkeypatch.setattr(Setting, "dense", property(small_dense))
    results, build = tmp_path / "results", tmp_path / "build"
    folders = ["--results", str(results), "--build", str(build)]
    command = ["--data", str(data), "--table", "baseline", "--seeds", "0", *folders]
    assert fsdd.main(command) == 0
    rows = table(results / "fsdd.csv")
    assert [row["arithmetic"] for row in rows] == ["float", "machine"]
    assert float(rows[1]["kept"]) == pytest.approx(1 / 4, rel=0.01)
    assert float(rows[1]["stored"]) == pytest.approx(1 / 4, rel=0.01)
    assert fsdd.main(command) == 0
    assert table(results / "fsdd.csv") == rows  # finished rows are not run again
    assert "1/4" in capsys.readouterr().err

    assert fsdd.main(["--compare", *folders]) == 0
    (difference,) = table(results / "fsdd_differences.csv")
    entropy = [np.load(build / f"{row['key']}.npz") for row in rows]
    loss = [-p["test"][np.arange(100), p["test_digits"]].mean() for p in entropy]
    assert float(difference["cross_entropy"]) == pytest.approx(loss[1] - loss[0], abs=1e-4)

    assert fsdd.main(["--tables", *folders]) == 0
    assert "| column-balanced 1/4 |" in capsys.readouterr().out

    assert fsdd.main(["--plot", *folders]) == 0
    assert (results / "fsdd_density.png").stat().st_size > 10_000

    assert fsdd.main(["--data", str(data), "--compile", rows[1]["key"], *folders]) == 0
    (compiled,) = table(results / "fsdd_compiled.csv")
    assert int(compiled["recordings"]) == 100
    assert float(compiled["equal_scores"]) > 0.9
    assert abs(float(compiled["difference"])) < 1e-3

    assert fsdd.main(["--data", str(data), "--thresholds", rows[1]["key"], *folders]) == 0
    sweep = table(results / "fsdd_thresholds.csv")
    assert sweep[0]["test_cross_entropy"] == rows[1]["test_cross_entropy"]  # 0 changes nothing
    skipped = [float(row["skipped_gru.weight_hh_l1"]) for row in sweep]
    assert skipped == sorted(skipped) and skipped[-1] > 0.5 > skipped[0]


def small_dense(self):
    return Setting(arithmetic="float", weight_bits=32, epochs=1, seed=self.seed, batch=16)


def test_budget_leaves_runs_out(data, tmp_path, monkeypatch, capsys):
    folders = ["--results", str(tmp_path), "--build", str(tmp_path)]
    command = ["--data", str(data), "--budget-minutes", "-1", *folders]
    assert fsdd.main(command) == 1
    assert "not run for lack of time" in capsys.readouterr().err
    assert not (tmp_path / "fsdd.csv").exists()


def test_an_interrupted_study_keeps_what_it_has_and_goes_on(data, tmp_path, monkeypatch):
    folders = ["--results", str(tmp_path), "--build", str(tmp_path)]
    monkeypatch.setitem(fsdd_settings.TABLES, "baseline", quick)
    monkeypatch.setattr(Setting, "dense", property(small_dense))
    command = ["--data", str(data), "--table", "baseline", "--seeds", "0", *folders]

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("espalier.compress", interrupted)
        fsdd.main(command)
    (dense,) = table(tmp_path / "fsdd.csv")
    assert dense["arithmetic"] == "float"
    assert fsdd.main(command) == 0
    assert table(tmp_path / "fsdd.csv")[0] == dense
    assert len(table(tmp_path / "fsdd.csv")) == 2


def test_a_teachers_scores_go_with_their_recordings(data):
    training = read(data).training
    scores = torch.nn.functional.one_hot(training.digits, 10).float()
    for _, _, digits, expected in Batches(training, 16, scores):
        assert expected.argmax(1).equal(digits)


def test_following_is_the_recipes_distillation(data):
    """The loss with a teacher's scores is what a Teacher that answers again makes of it."""
    from espalier.compression.distillation import Distillation, Teacher

    torch.manual_seed(0)
    teacher, student = SpeechReader(hidden=8).eval(), SpeechReader(hidden=8).eval()
    x, lengths, digits = read(data).training.padded(torch.arange(6))
    expected = Teacher(teacher, student, Distillation(logits=0.3, temperature=3.0), []).loss(
        fsdd_model.loss(student, (x, lengths, digits)), (x, lengths), student(x, lengths)
    )
    batch = x, lengths, digits, teacher(x, lengths).detach()
    assert fsdd_model.following(0.3, 3.0)(student, batch).item() == pytest.approx(expected.item())


def test_mistakes_are_one_line(data, tmp_path, capsys):
    folders = ["--results", str(tmp_path), "--build", str(tmp_path)]
    commands = {
        "--data must name the folder": [],
        "must name a folder with fsdd.npz": ["--data", str(tmp_path)],
        "a key must be one of the table's": ["--data", str(data), "--compile", "none"],
    }
    for message, command in commands.items():
        assert fsdd.main([*command, *folders]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
