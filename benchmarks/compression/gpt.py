"""Compression of a character GPT-2 on Tiny Shakespeare: docs/compression-study.md.

    python benchmarks/compression/gpt.py --data DIR              # every table, in order
    python benchmarks/compression/gpt.py --data DIR --table baseline densities
    python benchmarks/compression/gpt.py --compare               # paired intervals
    python benchmarks/compression/gpt.py --markdown              # the page's table
    python benchmarks/compression/gpt.py --plot                  # figure from the table
    python benchmarks/compression/gpt.py --data DIR --compile KEY [KEY ...]   # programs, run

DIR has tinyshakespeare.txt. Finished runs are rows of benchmarks/results/compression/gpt.csv and
are not run again; a run that was killed goes on from its checkpoint under build/compression/gpt.
"""

from __future__ import annotations

import argparse
import sys

from gpt_compare import draw, markdown, write
from gpt_settings import TABLES
from gpt_study import Study, summary
from ledger import Ledger
from study_cli import COMPARE, MARKDOWN, PLOT, StudyCli, add_tables, run_tables

CLI = StudyCli(
    name="gpt",
    description=__doc__,
    files="tinyshakespeare.txt",
    views={
        "compare": (COMPARE, write),
        "markdown": (MARKDOWN, lambda ledger, _: markdown(ledger)),
        "plot": (PLOT, draw),
    },
)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = CLI.parser()
    add_tables(parser, TABLES)
    add = parser.add_argument
    add("--compile", nargs="+", metavar="KEY", help="compile finished runs with rounded weights")
    add("--windows", type=int, default=64, help="of the test, for compiled programs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 1 when the budget left runs out, 2 for an error."""
    return CLI.main(arguments(argv), act)


def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
    study = Study(wishes.data, ledger)
    if wishes.compile:
        from gpt_compiled import check

        print(check(study, wishes.compile, wishes.results / "gpt_compiled.csv", wishes.windows))
        return 0
    settings = (s for table in wishes.table for s in TABLES[table]())
    return run_tables(wishes, settings, ledger, study.finish, summary)


if __name__ == "__main__":
    sys.exit(main())
