"""The study of SST-2 with a toy encoder and sentences made of two kinds of words."""

import random

import numpy as np
import pytest
import sst2
import sst2_settings
import torch
from ledger import read_table
from sst2_data import Batches, DataError, Sentences, encoder_folder, rows, split_rows
from sst2_settings import Setting

transformers = pytest.importorskip("transformers")
WORDS = {0: ["bad", "dull", "weak"], 1: ["good", "fine", "warm"]}
FILLERS = [f"w{i}" for i in range(60)]


def sentence(rng, label):
    words = rng.choices(FILLERS, k=rng.randint(3, 20)) + rng.choices(WORDS[label], k=3)
    rng.shuffle(words)
    return " ".join(words)


def write_rows(path, count, seed):
    rng = random.Random(seed)
    lines = [f"{i % 2}\t{sentence(rng, i % 2)}" for i in range(count)]
    path.write_text("label\tsentence\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with both files and one with a small BERT and its tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path_factory.mktemp("sst2")
    write_rows(folder / "sst2_train.tsv", 600, 0)
    write_rows(folder / "sst2_dev.tsv", 80, 1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *WORDS[0], *WORDS[1]]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    encoder = folder / "encoder"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(encoder)
    tokenizer.save(str(encoder / "tokenizer.json"))
    return folder, encoder


@pytest.fixture
def short(monkeypatch):
    """Two runs: the dense model for a few steps, and a retrained one."""
    dense = Setting(steps=60, learning_rate=1e-2, batch=32, examples=400)
    monkeypatch.setattr(Setting, "dense", property(lambda self: dense))
    more = {"steps": 10, "batch": 32, "examples": 400, "calibration": 16, "method": "wanda"}
    runs = [dense] + [Setting(density=0.5, pattern=p, **more) for p in sst2_settings.PATTERNS]
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
    seen = sorted(int(row[0]) for ids, _, _ in batches for row in ids)
    assert seen == list(range(2, 30))
    assert all((mask.sum(1) == ids[:, 0]).all() for ids, mask, _ in batches)


def test_runs_comparisons_and_figure(toy, short, tmp_path, capsys):
    folder, encoder = toy
    common = ["--results", str(tmp_path), "--build", str(tmp_path / "build")]
    run = [*common, "--data", str(folder), "--encoder", str(encoder), "--table", "baseline"]
    assert sst2.main(run) == 0
    table = read_table(tmp_path / "sst2.csv")
    assert [float(row["kept"]) for row in table] == [1.0, pytest.approx(0.5, abs=0.03), 0.5]
    assert float(table[0]["validation_accuracy"]) > 0.7
    assert not list((tmp_path / "build").glob("*.running"))
    before = (tmp_path / "sst2.csv").read_bytes()
    assert sst2.main(run) == 0 and (tmp_path / "sst2.csv").read_bytes() == before
    assert sst2.main([*common, "--compare"]) == 0
    differences = read_table(tmp_path / "sst2_differences.csv")
    assert len(differences) == 3  # both with the dense model, the pattern with the yardstick
    for row in differences:
        low, value, high = (float(row[f"accuracy_{x}"]) for x in ("low", "points", "high"))
        assert low <= value <= high and int(row["sentences"]) == 80
    assert sst2.main([*common, "--plot"]) == 0 and (tmp_path / "sst2_density.png").stat().st_size
    predictions = np.load(tmp_path / "build" / f"{table[0]['key']}.npz")
    assert predictions["test"].shape == (80, 2)
    capsys.readouterr()


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
