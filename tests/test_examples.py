"""Every example runs, and so does the Python in README.md."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("torch")


SCRIPTS = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples" / "classifier.py"})
"""The classifier is for `espalier compile`, below."""


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
