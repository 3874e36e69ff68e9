"""The study of SST-2 with a toy encoder and sentences made of two kinds of words."""

from dataclasses import replace

import numpy as np
import pytest
import sst2
import sst2_settings
import sst2_study
import sst2_teacher
import torch
from ledger import read_table
from sst2_data import Batches, DataError, Sentences, encoder_folder, read, rows, split_rows
from sst2_embeddings import compress, counts
from sst2_model import SentenceReader
from sst2_settings import Setting
from sst2_teacher import Loss, Teacher

pytest.importorskip("transformers")


@pytest.fixture
def short(monkeypatch):
    """The dense model in its two stages for a few steps, and retrained ones."""
    first = Setting(steps=60, learning_rate=1e-2, batch=32, examples=400)
    dense = replace(first, method="continue", steps=5, learning_rate=1e-3)
    origins = {"fine-tune": None, "continue": first}
    monkeypatch.setattr(Setting, "origin", property(lambda s: origins.get(s.method, dense)))
    monkeypatch.setattr(sst2_study, "CONTINUED", dense)
    monkeypatch.setattr(sst2_teacher, "LAYERS", (0, 1))
    after = Setting(method="wanda", density=0.5, steps=10, batch=32, examples=400, calibration=16,
                    distillation=0.5, hidden=1.0)  # fmt: skip
    words = {"steps": 4, "embedding_density": 0.5, "embedding_bits": 4, "hidden": 0.0}
    runs = [dense, *(replace(after, pattern=p) for p in sst2_settings.PATTERNS)]
    runs.append(replace(after, pattern="column-balanced", weight_bits=4, **words))
    monkeypatch.setitem(sst2_settings.TABLES, "baseline", lambda: runs)
    return runs


def test_validation_shares_no_run_of_words_with_training():
    texts = [" ".join(f"a{i}" for i in range(20)), "a3 a4 a5 a6 a7", "a3 a4 a5 a6 b", "x y z"]
    training, validation = split_rows(texts)
    assert validation.tolist() == [0] and training.tolist() == [2, 3]


def test_batches_cover_everything_once():
    tokens = [torch.full((n,), n) for n in range(2, 30)]
    sentences = Sentences(tokens, torch.arange(28) % 2)
    batches = list(Batches(sentences, 8))
    assert len(batches) == len(Batches(sentences, 8)) == 4
    seen = sorted(int(row[0]) for batch in batches for row in batch.ids)
    assert seen == list(range(2, 30)) == sorted(2 + row for batch in batches for row in batch.rows)
    assert all((batch.mask.sum(1) == batch.ids[:, 0]).all() for batch in batches)


def test_runs_comparisons_and_figure(toy, short, tmp_path, capsys):
    folder, encoder = toy
    common = ["--results", str(tmp_path), "--build", str(tmp_path / "build")]
    run = [*common, "--data", str(folder), "--encoder", str(encoder), "--table", "baseline"]
    assert sst2.main(run) == 0
    table = read_table(tmp_path / "sst2.csv")
    half = pytest.approx(0.5, abs=0.03)
    assert [float(row["kept"]) for row in table] == [1.0, 1.0, half, 0.5, half]
    assert float(table[4]["kept_of_all"]) < float(table[2]["kept_of_all"]) < 1
    assert float(table[1]["validation_accuracy"]) > 0.7
    assert not list((tmp_path / "build").glob("*.running"))
    before = (tmp_path / "sst2.csv").read_bytes()
    assert sst2.main(run) == 0 and (tmp_path / "sst2.csv").read_bytes() == before
    assert sst2.main([*common, "--compare"]) == 0
    differences = read_table(tmp_path / "sst2_differences.csv")
    # four with the dense model, the pattern with the yardstick
    assert len(differences) == 5
    for row in differences:
        low, value, high = (float(row[f"accuracy_{x}"]) for x in ("low", "points", "high"))
        assert low <= value <= high and int(row["sentences"]) == 80
    capsys.readouterr()
    assert sst2.main([*common, "--markdown"]) == 0
    assert capsys.readouterr().out.count("column-balanced") == 2
    assert sst2.main([*common, "--plot"]) == 0 and (tmp_path / "sst2_density.png").stat().st_size
    compiling = [*run, "--sentences", "3", "--compile"]
    assert sst2.main([*compiling, table[2]["key"]]) == 2
    assert "a retrained run with rounded weights" in capsys.readouterr().err
    assert sst2.main([*compiling, table[4]["key"]]) == 0
    program = read_table(tmp_path / "sst2_compiled.csv")[0]
    assert float(program["equal_scores"]) == 1 and program["sentences"] == "3"
    predictions = np.load(tmp_path / "build" / f"{table[0]['key']}.npz")
    assert predictions["test"].shape == (80, 2)
    capsys.readouterr()


def test_a_teacher_reads_a_sentence_once_and_equals_itself(toy, monkeypatch):
    folder, encoder = toy
    monkeypatch.setattr(sst2_teacher, "LAYERS", (0, 1))
    torch.manual_seed(0)
    split, model, calls = read(folder, encoder), SentenceReader(encoder, 0.0).eval(), []
    teacher, exactly = Teacher(model), model.read
    monkeypatch.setattr(
        model, "read", lambda ids, mask: calls.append(len(ids)) or exactly(ids, mask)
    )
    first, second = (split.training.padded(torch.arange(a, a + 4)) for a in (0, 2))
    teacher(first), teacher(second)
    assert calls == [4, 2]
    scores, states = teacher(second)
    exact, hidden = exactly(second.ids, second.mask)
    torch.testing.assert_close(scores, exact, atol=1e-5, rtol=0)
    kept = hidden[1] * second.mask[:, :, None]
    torch.testing.assert_close(states[:, :, 1], kept, atol=4e-3, rtol=0)  # 16-bit floats
    assert 0 <= float(Loss(teacher, logits=1.0, hidden=1.0)(model, second)) < 1e-5


def test_words_that_are_used_more_keep_more():
    table = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    used = counts([torch.tensor([0, 0, 1]), torch.tensor([0] * 50)], 8)
    assert used.tolist() == [52, 1, 0, 0, 0, 0, 0, 0]
    small = compress(table, 0.25, 32, used)
    assert int(small.count_nonzero()) == 32
    assert bool(((small == table) | (small == 0)).all())
    kept = small.count_nonzero(dim=1).tolist()
    assert kept[0] >= kept[1] >= max(kept[2:]) and kept[0] > 14
    rounded = compress(table, 1.0, 4, used)
    assert all(len(row.unique()) <= 15 for row in rounded)
    assert 0 < float((rounded - table).abs().max()) < 0.6


def test_what_is_missing_is_named(tmp_path, toy, capsys):
    assert sst2.main(["--results", str(tmp_path)]) == 2
    assert "--data must name the folder with sst2_train.tsv" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"there is no .*sst2_train\.tsv"):
        rows(tmp_path, "training")
    (tmp_path / "sst2_dev.tsv").write_text("label\tsentence\n2\thello\n")
    with pytest.raises(DataError, match="lines of a label"):
        rows(tmp_path, "test")
    with pytest.raises(DataError, match="it is no model folder of MiniLM"):
        encoder_folder(tmp_path)
