"""Every example runs, and so does the Python in README.md."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("torch")


APART = {ROOT / "examples" / name for name in ("classifier.py", "gpt_char.py", "minilm_search.py")}
"""The classifier is for `espalier compile`; the transformers take arguments. All three below."""
SCRIPTS = sorted(set((ROOT / "examples").glob("*.py")) - APART)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_example(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r"\d", said) and "nan" not in said, said


def test_streaming_example_skips_columns(capsys):
    runpy.run_path(str(ROOT / "examples" / "streaming.py"), run_name="__main__")
    share = re.search(r"60 steps equal one run; (\d+)% of the columns", capsys.readouterr().out)
    assert int(share[1]) > 30


def test_classifier_compiles_from_the_command_line(tmp_path, monkeypatch, capsys):
    from espalier import cli

    target = tmp_path / "classifier.espalier"
    source = f"{ROOT / 'examples' / 'classifier.py'}:build"
    monkeypatch.setattr(sys, "argv", ["espalier", "compile", source, "-o", str(target)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code, capsys.readouterr().err
    assert target.exists()


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def run_with(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.mark.filterwarnings("ignore:.*eps=")  # hardly trained, its variances are tiny
def test_gpt_writes_text(capsys, monkeypatch):
    run_with(monkeypatch, "gpt_char.py", "--steps", "3", "--tokens", "4", "--layers", "1")
    said = capsys.readouterr().out
    loss = re.search(r"([\d.]+) in floating point, ([\d.]+) with", said)
    assert abs(float(loss[1]) - float(loss[2])) < 0.02, said
    assert len(said.split("The import statement", 1)[1].strip("\n")) == 4


@pytest.mark.filterwarnings("ignore:.*eps=")
def test_minilm_search_ranks_sentences(capsys, monkeypatch, tmp_path):
    """With a tiny BERT of random weights in place of the packaged one."""
    tokenizers = pytest.importorskip("tokenizers")
    from tiny_transformers import bert

    known = ["[UNK]", "the", "a", "of", "in", "film", "river", "her"]
    words = {word: i for i, word in enumerate(known)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    bert().save_pretrained(tmp_path)
    run_with(monkeypatch, "minilm_search.py", "--model", str(tmp_path))
    said = capsys.readouterr().out
    assert len(re.findall(r"-?\d\.\d{3}", said)) == 20 and "order" in said
