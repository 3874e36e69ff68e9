"""The demo's network on the simulated DE1-SoC: the shipped driver in a process of its own, bus
transactions for every register access, random stalls on both buses, guard pages around the window.

    make demo                                # build/demo/digits_SMALL.espalier
    python benchmarks/board_demo.py          # benchmarks/results/board_demo.csv, minutes
"""

from __future__ import annotations

import argparse
import csv
import datetime
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import espalier
from espalier.demo.data import digits
from espalier_sim.board.process import Board, Report

RESULTS = Path(__file__).parent / "results"
HOST = """
import sys
import numpy as np
import espalier
root, program, folder, count = sys.argv[1:]
x = np.load(f"{folder}/x.npy")
found = []
with espalier.open("de1-soc", root=root) as device:
    session = device.load(program)
    for number in range(int(count)):
        sample = number % len(x)
        found.append(session.run_integers(x[sample : sample + 1]))
np.save(f"{folder}/y.npy", np.concatenate(found))
"""


def column_inputs(program: espalier.Program, images: np.ndarray) -> np.ndarray:
    """The demo's test images as the integers of the program's one input."""
    scale = program.inputs[0].scale
    return np.clip(np.rint(images / scale), -127, 127).astype(np.int64)


def on_board(
    program: Path, x: np.ndarray, count: int, **options: float
) -> tuple[np.ndarray, Report]:
    """Outputs of `count` inferences in a row, one process and one load, and the board's report."""
    config = espalier.Program.load(program).config
    with tempfile.TemporaryDirectory() as folder, Board(config, **options) as board:
        np.save(f"{folder}/x.npy", x)
        words = [sys.executable, "-c", HOST, str(board.root), str(program), folder, str(count)]
        subprocess.run(words, env=board.environment, check=True)
        return np.load(f"{folder}/y.npy"), board.report()


def row(program: Path, count: int, stall: float, seed: int) -> dict[str, object]:
    loaded = espalier.Program.load(program)
    x = column_inputs(loaded, digits().test)
    with espalier.open("reference") as device:
        expected = device.load(loaded).run_integers(x)
    start = time.perf_counter()
    found, report = on_board(
        program, x, count, stall=stall, seed=seed, latency=24, window_bytes=1 << 22
    )
    wrong = (found != expected[np.arange(count) % len(x)]).any(axis=-1).sum()
    return {
        "date": datetime.date.today().isoformat(),
        "config": loaded.config.name,
        "inferences": count,
        "wrong": int(wrong),
        "stall": stall,
        "seed": seed,
        "cycles": report.cycles,
        "memory_bursts": report.bursts,
        "breach": report.breach or "none",
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path("build/demo/digits_SMALL.espalier")
    parser.add_argument("--program", type=Path, default=default, help="made by `make demo`")
    parser.add_argument("--inferences", type=int, default=1000)
    parser.add_argument("--stall", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not options.program.is_file():
        parser.error(f"{options.program}: no such file; `make demo` makes it")
    result = row(options.program, options.inferences, options.stall, options.seed)
    with (RESULTS / "board_demo.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, result)
        writer.writeheader()
        writer.writerow(result)
    print(*(f"{name}: {value}" for name, value in result.items()), sep="\n")


if __name__ == "__main__":
    main()
