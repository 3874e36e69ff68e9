"""What all studies share: which runs start, which views need no data, how mistakes end."""

import argparse
from argparse import Namespace
from dataclasses import asdict, dataclass

import pytest
import study_runs
from ledger import Ledger, append, read_table
from study_cli import StudyCli, add_tables, chosen, run_tables
from study_errors import DataError


@dataclass(frozen=True)
class Setting:
    density: float

    def values(self):
        return asdict(self)


HALF, THIRD, TENTH = Setting(1 / 2), Setting(1 / 3), Setting(1 / 10)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "toy.csv", tmp_path / "build")
    ledger.add(THIRD.values(), {}, {})
    return ledger


def test_a_run_is_started_once_in_order_and_not_when_finished(ledger):
    started = []
    left = study_runs.run(
        [TENTH, THIRD, HALF, TENTH], ledger, lambda setting, report: started.append(setting)
    )
    assert started == [TENTH, HALF] and left == []


def test_no_run_starts_that_would_end_after_the_budget(ledger, monkeypatch):
    now, started = [0.0], []
    monkeypatch.setattr(study_runs.time, "monotonic", lambda: now[0])

    def finish(setting, report):
        started.append(setting)
        now[0] += 100

    settings = [Setting(1 / n) for n in range(4, 9)]
    assert study_runs.run(settings, ledger, finish, 299 / 60) == settings[2:]
    assert started == settings[:2]
    assert study_runs.run(settings, ledger, finish, 300 / 60) == settings[3:]


def test_only_keeps_what_has_one_of_the_texts():
    assert chosen([HALF, THIRD, TENTH], ["0.5", "0.1)"]) == [HALF, TENTH]
    assert chosen([HALF, THIRD], None) == [HALF, THIRD]


def test_runs_left_out_are_the_exit_status(ledger, capsys):
    def call(budget: float | None) -> int:
        wishes = Namespace(only=None, budget_minutes=budget)
        finish = lambda s, report: ledger.add(s.values(), {}, {})  # noqa: E731
        return run_tables(wishes, [HALF, TENTH], ledger, finish, lambda rows: f"{len(rows)} rows")

    assert call(-1) == 1
    said = capsys.readouterr()
    assert "lack of time: 2, first Setting(density=0.5)" in said.err and "1 rows" in said.out
    assert call(None) == 0
    assert "3 rows" in capsys.readouterr().out


def cli():
    count = "count finished runs", lambda ledger, folder: f"{len(ledger.rows())} in {folder.name}"
    return StudyCli(name="toy", description="A toy.", files="toy.txt", views={"count": count})


def test_a_view_needs_no_data_and_a_run_does(ledger, tmp_path, capsys):
    parser = cli().parser()
    add_tables(parser, ["first", "second"])
    folders = ["--results", str(tmp_path), "--build", str(tmp_path / "build")]

    def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
        if wishes.table != ["first", "second"]:
            raise DataError(f"no {wishes.table}")
        return 1

    def ended(*words):
        return cli().main(parser.parse_args([*words, *folders]), act), capsys.readouterr()

    status, printed = ended("--count")
    assert status == 0 and printed.out == f"1 in {tmp_path.name}\n"
    status, printed = ended()
    assert status == 2 and printed.err == "error: --data must name the folder with toy.txt\n"
    assert ended("--data", str(tmp_path))[0] == 1
    status, printed = ended("--data", str(tmp_path), "--table", "second")
    assert status == 2 and printed.err == "error: no ['second']\n"


def test_rows_are_appended_each_as_soon_as_it_is_there(tmp_path):
    path = tmp_path / "more.csv"

    def rows():
        yield {"key": "a", "value": 1}
        assert [row["key"] for row in read_table(path)] == ["a"]
        yield {"key": "b", "value": 2}

    assert append(path, rows()) == "key=a value=1\nkey=b value=2"
    assert [row["value"] for row in read_table(path)] == ["1", "2"]
