"""Compression of a two-layer GRU of 256 units on spoken digits: docs/compression-study.md.

    python benchmarks/compression/fsdd.py --data DIR                # every table, hours on one core
    python benchmarks/compression/fsdd.py --data DIR --table densities --seeds 0 1 2
    python benchmarks/compression/fsdd.py --compare                 # paired intervals of what ran
    python benchmarks/compression/fsdd.py --plot                    # figures from the table
    python benchmarks/compression/fsdd.py --tables                  # docs/compression-study.md's
    python benchmarks/compression/fsdd.py --data DIR --compile KEY  # programs against modules

DIR has fsdd.npz. Finished runs are rows of benchmarks/results/compression/fsdd.csv and are not run
again; their predictions and weights lie in build/compression/fsdd.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fsdd_compare
import fused
from fsdd_plots import draw
from fsdd_settings import TABLES
from fsdd_study import Study, summary
from fsdd_tables import tables
from ledger import Ledger
from study_cli import COMPARE, StudyCli, add_tables, run_tables


def compare(ledger: Ledger, folder: Path) -> str:
    return fsdd_compare.write(ledger, folder / "fsdd_differences.csv")


def plot(ledger: Ledger, folder: Path) -> str:
    return "\n".join(map(str, draw(ledger.rows(), folder)))


CLI = StudyCli(
    name="fsdd",
    description=__doc__,
    files="fsdd.npz",
    views={
        "compare": (COMPARE, compare),
        "plot": ("draw figures of finished runs, and stop", plot),
        "tables": (
            "print finished runs as Markdown tables, and stop",
            lambda _, folder: tables(folder),
        ),
    },
)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = CLI.parser()
    add_tables(parser, TABLES)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--plain", action="store_true", help="train without the C loops, see fused.py")
    add("--compile", nargs="+", metavar="KEY", help="compile these finished runs, and stop")
    add("--thresholds", nargs="+", metavar="KEY", help="set delta thresholds in these, and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 1 when the budget left runs out, 2 for an error."""
    return CLI.main(arguments(argv), act)


def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
    study = Study(wishes.data, ledger)
    if wishes.compile:
        from fsdd_compiled import check

        print(check(study, wishes.compile, wishes.results / "fsdd_compiled.csv"))
        return 0
    if wishes.thresholds:
        from fsdd_thresholds import sweep

        print(sweep(study, wishes.thresholds, wishes.results / "fsdd_thresholds.csv"))
        return 0
    if not wishes.plain:
        fused.install(wishes.build)
    settings = (s for seed in wishes.seeds for table in wishes.table for s in TABLES[table](seed))
    return run_tables(wishes, settings, ledger, study.finish, summary)


if __name__ == "__main__":
    sys.exit(main())
