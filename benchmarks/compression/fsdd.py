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

import fused
import torch
from fsdd_data import DataError
from fsdd_settings import TABLES
from fsdd_study import Study, summary
from ledger import Ledger

from espalier.errors import EspalierError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "compression"
BUILD = ROOT / "build" / "compression" / "fsdd"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder with fsdd.npz")
    add("--table", nargs="+", choices=TABLES, default=list(TABLES), help="what to run, in order")
    add("--only", metavar="TEXT", nargs="+", help="of these, what has one of the texts in its name")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, default=1, help="of torch")
    add("--plain", action="store_true", help="train without the C loops, see fused.py")
    add("--budget-minutes", type=float, help="start no run that would end later than this")
    add("--results", type=Path, default=RESULTS, help="folder of tables and plots")
    add("--build", type=Path, default=BUILD, help="folder of predictions and weights")
    add("--compare", action="store_true", help="write paired intervals of finished runs, and stop")
    add("--plot", action="store_true", help="draw figures of finished runs, and stop")
    add("--tables", action="store_true", help="print finished runs as Markdown tables, and stop")
    add("--compile", nargs="+", metavar="KEY", help="compile these finished runs, and stop")
    add("--thresholds", nargs="+", metavar="KEY", help="set delta thresholds in these, and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    wishes = arguments(argv)
    ledger = Ledger(wishes.results / "fsdd.csv", wishes.build)
    torch.set_num_threads(wishes.threads)
    try:
        return act(wishes, ledger)
    except (DataError, EspalierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
    """Do what was asked for; 1 when the budget left runs out."""
    if wishes.plot:
        from fsdd_plots import draw

        print(*draw(ledger.rows(), wishes.results), sep="\n")
        return 0
    if wishes.compare:
        from fsdd_compare import write

        print(write(ledger, wishes.results / "fsdd_differences.csv"))
        return 0
    if wishes.tables:
        from fsdd_tables import tables

        print(tables(wishes.results))
        return 0
    if wishes.data is None:
        raise DataError("--data must name the folder with fsdd.npz")
    if wishes.compile:
        from fsdd_compiled import check

        study = Study(wishes.data, ledger)
        print(check(study, wishes.compile, wishes.results / "fsdd_compiled.csv"))
        return 0
    if wishes.thresholds:
        from fsdd_thresholds import sweep

        study = Study(wishes.data, ledger)
        print(sweep(study, wishes.thresholds, wishes.results / "fsdd_thresholds.csv"))
        return 0
    return run(wishes, ledger)


def run(wishes: argparse.Namespace, ledger: Ledger) -> int:
    if not wishes.plain:
        fused.install(wishes.build)
    study = Study(wishes.data, ledger, wishes.budget_minutes)
    settings = [s for seed in wishes.seeds for t in wishes.table for s in TABLES[t](seed)]
    if wishes.only:
        settings = [s for s in settings if any(text in str(s) for text in wishes.only)]
    left = study.run(settings)
    print(summary(ledger.rows()))
    if left:
        print(f"not run for lack of time: {len(left)}, first {left[0]}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
