"""The study of the character model with a small one and a text that repeats itself."""

from dataclasses import replace

import gpt
import gpt_model
import gpt_settings
import numpy as np
import pytest
import torch
from gpt_data import CONTEXT, Batches, DataError, read, windows
from gpt_settings import RETRAINED, Setting
from ledger import read_table

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text of words in random order."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("text")
    words = ["be ", "not ", "or ", "to ", "the question\n"]
    text = "".join(words[i] for i in rng.integers(len(words), size=8000))
    (folder / "tinyshakespeare.txt").write_text(text)
    return folder


@pytest.fixture
def short(monkeypatch):
    """The dense model for a few steps, and compressed ones."""
    size = {"n_layer": 1, "n_head": 2, "n_embd": 32}
    monkeypatch.setattr(gpt_model, "SIZE", size)
    dense = Setting(steps=60, learning_rate=1e-2, batch=4)
    monkeypatch.setattr(Setting, "dense", property(lambda s: replace(dense, seed=s.seed)))
    after = replace(RETRAINED, steps=8, batch=4, density=0.5)
    runs = [dense, *(replace(after, pattern=p) for p in gpt_settings.PATTERNS)]
    runs.append(replace(runs[1], weight_bits=4))
    monkeypatch.setitem(gpt_settings.TABLES, "baseline", lambda: runs)
    return runs


def test_parts_are_in_order_and_windows_cover_them(folder):
    text = read(folder)
    whole = "".join(
        text.alphabet[i] for i in torch.cat([text.training, text.validation, text.test])
    )
    assert whole == (folder / "tinyshakespeare.txt").read_text()
    assert len(text.test) == pytest.approx(len(whole) / 10, abs=1)
    rows = windows(text.test)
    assert rows[0, -1] == rows[1, 0]
    assert torch.equal(rows[:, :-1].flatten(), text.test[: rows[:, :-1].numel()])


def test_batches_follow_the_random_generator():
    batches = Batches(torch.arange(1000), 3)
    torch.manual_seed(1)
    first = next(iter(batches))
    torch.manual_seed(1)
    assert torch.equal(first, next(iter(batches))) and first.shape == (3, CONTEXT + 1)
    assert bool((first.diff(dim=1) == 1).all())


def test_runs_comparisons_programs_and_figure(folder, short, tmp_path, capsys):
    common = ["--results", str(tmp_path), "--build", str(tmp_path / "build")]
    run = [*common, "--data", str(folder), "--table", "baseline"]
    assert gpt.main(run) == 0
    table = read_table(tmp_path / "gpt.csv")
    assert float(table[0]["test_cross_entropy"]) < 1.5  # ln of 14 characters is 2.6
    assert [float(row["kept"]) for row in table] == [1.0, *[pytest.approx(0.5, abs=0.03)] * 3]
    before = (tmp_path / "gpt.csv").read_bytes()
    assert gpt.main(run) == 0 and (tmp_path / "gpt.csv").read_bytes() == before
    assert gpt.main([*common, "--compare"]) == 0
    # three with the dense model, the pattern with the yardstick, rounded with floats
    assert len(read_table(tmp_path / "gpt_differences.csv")) == 5
    capsys.readouterr()
    assert gpt.main([*common, "--markdown"]) == 0
    assert capsys.readouterr().out.count("column-balanced") == 2
    assert gpt.main([*common, "--plot"]) == 0 and (tmp_path / "gpt_density.png").stat().st_size
    compiling = [*common, "--data", str(folder), "--windows", "2", "--compile"]
    assert gpt.main([*compiling, table[1]["key"]]) == 2
    assert "a key must be of a run with rounded weights" in capsys.readouterr().err
    assert gpt.main([*compiling, table[3]["key"]]) == 0
    row = read_table(tmp_path / "gpt_compiled.csv")[0]
    assert float(row["equal_windows"]) == 1 and row["module"] == row["program"]


def test_what_is_missing_is_named(tmp_path, capsys):
    assert gpt.main(["--results", str(tmp_path)]) == 2
    assert "--data must name the folder with tinyshakespeare.txt" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"there is no .*tinyshakespeare\.txt"):
        read(tmp_path)
    (tmp_path / "tinyshakespeare.txt").write_text("to be")
    with pytest.raises(DataError, match="must have at least 2600 characters, not 5"):
        read(tmp_path)
