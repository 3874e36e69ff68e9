"""Command line that the studies share: folders, tables to run, views of finished runs, errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from ledger import Ledger
from progress import Report
from study_errors import DataError
from study_runs import S, run

from espalier.errors import EspalierError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "compression"
COMPARE = "write paired intervals of finished runs, and stop"
MARKDOWN = "print the table of finished runs, and stop"
PLOT = "draw the figure of finished runs, and stop"
View = Callable[[Ledger, Path], str]


@dataclass(frozen=True)
class StudyCli:
    """What a study's command line has besides options of its own.

    Members
    -------
    name: of the CSV of its runs, and of its folder under build/compression.
    description: the help's first part.
    files: what the folder of --data has.
    views: option -> its help, and what makes text (and files in the folder of results) of finished
        runs. They need no data.
    """

    name: str
    description: str
    files: str
    views: Mapping[str, tuple[str, View]]

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            description=self.description, formatter_class=argparse.RawTextHelpFormatter
        )
        add, build = parser.add_argument, ROOT / "build" / "compression" / self.name
        add("--data", type=Path, metavar="DIR", help=f"folder with {self.files}")
        add("--only", metavar="TEXT", nargs="+", help="runs with one of the texts in their names")
        add("--threads", type=int, default=1, help="of torch")
        add("--results", type=Path, default=RESULTS, help="folder of tables and plots")
        add("--build", type=Path, default=build, help="folder of predictions and weights")
        for option, (text, _) in self.views.items():
            add(f"--{option}", action="store_true", help=text)
        return parser

    def main(
        self, wishes: argparse.Namespace, act: Callable[[argparse.Namespace, Ledger], int]
    ) -> int:
        """Print the view asked for, or else what `act` does with the data; 2 for an error."""
        ledger = Ledger(wishes.results / f"{self.name}.csv", wishes.build)
        torch.set_num_threads(wishes.threads)
        try:
            for option, (_, view) in self.views.items():
                if getattr(wishes, option):
                    print(view(ledger, wishes.results))
                    return 0
            if wishes.data is None:
                raise DataError(f"--data must name the folder with {self.files}")
            return act(wishes, ledger)
        except (DataError, EspalierError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def add_tables(parser: argparse.ArgumentParser, tables: Collection[str]) -> None:
    """Options of a study whose runs are in tables, for which there may be too little time."""
    add = parser.add_argument
    add("--table", nargs="+", choices=tables, default=list(tables), help="what to run, in order")
    add("--budget-minutes", type=float, help="start no run that would end later than this")


def chosen(settings: Iterable[S], texts: Collection[str] | None) -> list[S]:
    """What has one of the texts of --only in its name; all without the option."""
    return [s for s in settings if not texts or any(text in str(s) for text in texts)]


def run_tables(
    wishes: argparse.Namespace,
    settings: Iterable[S],
    ledger: Ledger,
    finish: Callable[[S, Report], None],
    summary: Callable[[list[dict[str, str]]], str],
) -> int:
    """Run what was chosen and print all that is finished; 1 when the budget leaves runs out."""
    left = run(chosen(settings, wishes.only), ledger, finish, wishes.budget_minutes)
    print(summary(ledger.rows()))
    if left:
        print(f"not run for lack of time: {len(left)}, first {left[0]}", file=sys.stderr)
    return 1 if left else 0
