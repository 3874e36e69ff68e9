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
from pathlib import Path

import torch
from gpt_data import DataError
from gpt_settings import TABLES
from gpt_study import Study, summary
from ledger import Ledger

from espalier.errors import EspalierError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "compression"
BUILD = ROOT / "build" / "compression" / "gpt"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder with tinyshakespeare.txt")
    add("--table", nargs="+", choices=TABLES, default=list(TABLES), help="what to run, in order")
    add("--only", metavar="TEXT", nargs="+", help="of these, what has one of the texts in its name")
    add("--threads", type=int, default=1, help="of torch")
    add("--budget-minutes", type=float, help="start no run that would end later than this")
    add("--results", type=Path, default=RESULTS, help="folder of tables and plots")
    add("--build", type=Path, default=BUILD, help="folder of predictions, weights, checkpoints")
    add("--compare", action="store_true", help="write paired intervals of finished runs, and stop")
    add("--markdown", action="store_true", help="print the table of finished runs, and stop")
    add("--plot", action="store_true", help="draw the figure of finished runs, and stop")
    add("--compile", nargs="+", metavar="KEY", help="compile finished runs with rounded weights")
    add("--windows", type=int, default=64, help="of the test, for compiled programs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 1 when the budget left runs out, 2 for an error."""
    wishes = arguments(argv)
    ledger = Ledger(wishes.results / "gpt.csv", wishes.build)
    torch.set_num_threads(wishes.threads)
    try:
        if wishes.plot or wishes.compare or wishes.markdown:
            import gpt_compare

            if wishes.markdown:
                print(gpt_compare.markdown(ledger))
            else:
                act = gpt_compare.draw if wishes.plot else gpt_compare.write
                print(act(ledger, wishes.results))
            return 0
        if wishes.data is None:
            raise DataError("--data must name the folder with tinyshakespeare.txt")
        study = Study(wishes.data, ledger, wishes.budget_minutes)
        if wishes.compile:
            import gpt_compiled

            path = wishes.results / "gpt_compiled.csv"
            print(gpt_compiled.check(study, wishes.compile, path, wishes.windows))
            return 0
        return run(wishes, study)
    except (DataError, EspalierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(wishes: argparse.Namespace, study: Study) -> int:
    settings = [s for table in wishes.table for s in TABLES[table]()]
    if wishes.only:
        settings = [s for s in settings if any(text in str(s) for text in wishes.only)]
    left = study.run(settings)
    print(summary(study.ledger.rows()))
    if left:
        print(f"not run for lack of time: {len(left)}, first {left[0]}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
