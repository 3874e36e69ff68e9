"""The command line as a user calls it."""

import sys

import pytest

from espalier import cli


@pytest.fixture
def espalier(monkeypatch, capsys):
    """Call the command line; gives (exit status, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["espalier", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    yield call
    cli.options.debug = False


@pytest.fixture
def program_file(tmp_path, running_sum):
    return running_sum.save(tmp_path / "sum.espalier")
