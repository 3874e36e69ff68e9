"""One-shot pruning by embeddings: measures by hand, runs with a toy encoder."""

import numpy as np
import one_shot
import pytest
import torch
from ledger import read_table
from one_shot import Setting, rank_agreement, same_nearest

pytest.importorskip("transformers")


def test_measures_of_equal_and_of_moved_embeddings():
    exact = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.2]])
    assert rank_agreement(2 * exact, exact) == pytest.approx(1)
    assert same_nearest(2 * exact, exact) == 1
    swapped = exact[[2, 1, 0, 3]]
    assert rank_agreement(swapped, exact) < 0.9
    moved = exact.clone()
    moved[1] = torch.tensor([0.1, 0.9])  # nearest: 1, 0, 3, 2 before; 1, 2, 1, 2 after
    assert same_nearest(moved, exact) == pytest.approx(0.5)


def test_runs_and_table(toy, tmp_path, monkeypatch, capsys):
    folder, encoder = toy
    common = {"density": 0.5, "calibration": 8, "sentences": 12}
    runs = [Setting(method=m, pattern=one_shot.PATTERNS[0], **common) for m in one_shot.METHODS]
    runs.append(Setting(method="wanda", pattern=one_shot.PATTERNS[1], **common))
    monkeypatch.setattr(one_shot, "settings", lambda: runs)
    places = ["--results", str(tmp_path), "--build", str(tmp_path / "build")]
    given = [*places, "--data", str(folder), "--encoder", str(encoder)]
    assert one_shot.main(given) == 0
    rows = read_table(tmp_path / "one_shot.csv")
    assert all(float(row["kept"]) == pytest.approx(0.5, abs=0.05) for row in rows)
    for row in rows:  # an untrained encoder's layers add little to its embeddings
        cosines = np.load(tmp_path / "build" / f"{row['key']}.npz")["cosines"]
        assert float(row["mean_cosine"]) == pytest.approx(float(cosines.mean()), abs=1e-5)
        assert cosines.shape == (12,) and 0.9 < cosines.min() <= cosines.max() < 1 + 1e-6
    capsys.readouterr()
    assert one_shot.main([*places, "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 5 and "[" in lines[3] and "[" not in lines[2]
    assert one_shot.main(places) == 2
    assert "--data must name the folder" in capsys.readouterr().err
