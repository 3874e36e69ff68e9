"""The demo's network over the serial link: Ulx3sFabric in Verilator behind a pseudo-terminal, 4
cycles a bit, and the shipped transport; once on a clean line, once on one that damages bytes.

    make demo                                # build/demo/digits_ULX3S.espalier
    python benchmarks/serial_demo.py         # benchmarks/results/serial_demo.csv, minutes
"""

from __future__ import annotations

import argparse
import csv
import datetime
import time
from pathlib import Path

import numpy as np
from board_demo import column_inputs

import espalier
from espalier.demo.data import digits
from espalier_sim.board.serial import CLOCKS, SerialBoard

RESULTS = Path(__file__).parent / "results"
PATIENT = {"answer_s": 1.0, "retries": 100}
"""A simulation answers slowly."""


def row(program: espalier.Program, count: int, damage: float, seed: int) -> dict[str, object]:
    x = column_inputs(program, digits().test)[:count]
    with espalier.open("reference") as device:
        expected = device.load(program).run_integers(x)
    wrong = 0
    with SerialBoard(program.config, damage=damage, seed=seed) as board:
        start = time.perf_counter()
        with espalier.open(f"serial:{board.path}", **PATIENT) as device:
            session = device.load(program)
            for sample, wanted in zip(x, expected, strict=True):
                wrong += not np.array_equal(session.run_integers(sample[np.newaxis])[0], wanted)
            repeats = device._transport.repeats
        cycles = board.close()
    return {
        "date": datetime.date.today().isoformat(),
        "config": program.config.name,
        "clocks_per_bit": CLOCKS,
        "damage": damage,
        "seed": seed,
        "inferences": count,
        "wrong": wrong,
        "requests_repeated": repeats,
        "cycles": cycles,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path("build/demo/digits_ULX3S.espalier")
    parser.add_argument("--program", type=Path, default=default, help="made by `make demo`")
    parser.add_argument("--inferences", type=int, default=20)
    parser.add_argument("--damage", type=float, default=1e-3, help="share of bytes, second row")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not options.program.is_file():
        parser.error(f"{options.program}: no such file; `make demo` makes it")
    program = espalier.Program.load(options.program)
    rows = [
        row(program, options.inferences, damage, options.seed) for damage in (0, options.damage)
    ]
    with (RESULTS / "serial_demo.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for result in rows:
        print(*(f"{name}: {value}" for name, value in result.items()), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
