"""Cycles of a GRU step on DE1_SOC: 512 inputs, 512 units, density 1/12, weights resident.

Simulated in Verilator; microseconds at an assumed 100 MHz. The share of nonzero columns is forced:
inputs are drawn with that share, and an update gate held near 1 keeps the state as it was given.
Steady state: the difference between a long and a short run.

    python benchmarks/gru_512.py            # benchmarks/results/gru_512.{csv,png}, minutes
"""

from __future__ import annotations

import argparse
import csv
import datetime
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

import espalier
from espalier.perf import CLOCK_HZ, dense_macs, simulate
from espalier.perf.trace import Step
from espalier.spec.config import preset

RESULTS = Path(__file__).parent / "results"
SHARES = (1.0, 0.7, 0.4, 0.2, 0.1)
SHORT, LONG = 4, 12
SIZE = 512
HELD = 20.0
"""Bias of the update gate: z is then the largest that the table gives, and the state stays."""


def model() -> torch.nn.GRU:
    torch.manual_seed(0)
    gru = torch.nn.GRU(SIZE, SIZE, batch_first=True).eval()
    with torch.no_grad():
        gru.bias_ih_l0[SIZE : 2 * SIZE] = HELD
    return gru


class WithState(torch.nn.Module):
    """The GRU with its initial state as an input."""

    def __init__(self, gru: torch.nn.GRU):
        super().__init__()
        self.gru = gru

    def forward(self, x: torch.Tensor, h0: torch.Tensor) -> torch.Tensor:
        return self.gru(x, h0)[0]


def sparse(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """Values of ±0.9 in exactly `share` of the last axis, zeros elsewhere."""
    ranks = rng.random(shape).argsort(-1).argsort(-1)
    signs = rng.choice([-0.9, 0.9], shape)
    return np.where(ranks < round(share * shape[-1]), signs, 0).astype(np.float32)


def build(config_name: str) -> espalier.Program:
    net = WithState(model()).eval()
    rng = np.random.default_rng(0)
    example = tuple(torch.from_numpy(sparse(rng, s, 1.0)) for s in ((1, 4, SIZE), (1, 1, SIZE)))
    recipe = espalier.Recipe(density=1 / 12, weight_bits=4, delta=False, allocation="uniform")
    small = espalier.compress(net, recipe, calibration=[example])
    return espalier.compile(small, example, config=preset(config_name))


def measure(program: espalier.Program, share: float) -> dict[str, float]:
    """Counters of LONG minus SHORT steps on the RTL, equal to the reference's outputs; and the
    model's cycles."""
    rng = np.random.default_rng(round(100 * share))
    h0 = sparse(rng, (1, 1, SIZE), share)
    x = sparse(rng, (1, LONG, SIZE), share)
    steps: list[Step] = []

    def observe(pc: int, instruction: object, work: object) -> None:
        steps.append(Step(pc, instruction, work))

    rows, outputs, modelled = {}, {}, {}
    for name, options in (("reference", {"observer": observe}), ("rtl", {})):
        with espalier.open(name, **options) as device:
            session = device.load(program)
            for length in (SHORT, LONG):
                session.reset()
                steps.clear()
                outputs[name, length] = session.run(x[:, :length], h0)
                rows[name, length] = dict(session.counters)
                if name == "reference":
                    modelled[length] = simulate(program.config, last_run(steps))
    for length in (SHORT, LONG):
        assert np.array_equal(outputs["reference", length], outputs["rtl", length])
    n = LONG - SHORT
    first, last = rows["rtl", SHORT], rows["rtl", LONG]
    per_step = {key: (last[key] - first[key]) / n for key in last}
    return {**per_step, "modelled_cycles": (modelled[LONG].cycles - modelled[SHORT].cycles) / n}


def last_run(steps: list[Step]) -> list[Step]:
    """The instructions after the last but one HALT."""
    ends = [i for i, step in enumerate(steps) if step.instruction.opcode.name == "HALT"]
    return steps[ends[-2] + 1 :] if len(ends) > 1 else steps


def row(program: espalier.Program, share: float) -> dict[str, float | str]:
    c, counters = program.config, measure(program, share)
    cycles = counters["cycles"]
    columns = counters["visits"] + counters["skipped"]
    seconds = cycles / CLOCK_HZ
    return {
        "date": datetime.date.today().isoformat(),
        "config": c.name,
        "lanes": c.total_lanes,
        "nonzero_columns": round(counters["visits"] / columns, 4),
        "cycles_per_step": cycles,
        "modelled_cycles_per_step": counters["modelled_cycles"],
        "product_cycles": counters["product_cycles"],
        "words": counters["words"],
        "lanes_busy": round(counters["words"] / c.arrays / counters["product_cycles"], 4),
        "microseconds_at_100_mhz": round(seconds * 1e6, 3),
        "actual_gops": round(2 * counters["words"] * c.lanes / seconds / 1e9, 2),
        "effective_gops": round(2 * dense_macs(program, 1) / seconds / 1e9, 2),
        "read_bytes": 16 * counters["read_beats"],
        "write_bytes": 16 * counters["write_beats"],
    }


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, left = plt.subplots(figsize=(6, 4))
    right = left.twinx()
    shares = [100 * r["nonzero_columns"] for r in rows]
    left.plot(shares, [r["cycles_per_step"] for r in rows], "o-", color="tab:blue", label="RTL")
    left.plot(
        shares, [r["modelled_cycles_per_step"] for r in rows], "x:", color="tab:gray", label="model"
    )
    right.plot(shares, [100 * r["lanes_busy"] for r in rows], "s--", color="tab:orange")
    left.set(xlabel="nonzero columns (%)", ylabel="cycles a step", ylim=(0, None))
    left.legend(loc="lower right")
    right.set_ylabel("lanes busy while a product runs (%)", color="tab:orange")
    right.set_ylim(0, 100)
    figure.suptitle("GRU 512/512, density 1/12, DE1_SOC in Verilator")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", default="DE1_SOC")
    arguments = parser.parse_args()
    program = build(arguments.config)
    rows = [row(program, share) for share in track(SHARES, "simulating")]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "gru_512.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, RESULTS / "gru_512.png")
    for r in rows:
        print(
            {
                k: r[k]
                for k in (
                    "nonzero_columns",
                    "cycles_per_step",
                    "modelled_cycles_per_step",
                    "lanes_busy",
                    "actual_gops",
                    "effective_gops",
                )
            }
        )


if __name__ == "__main__":
    main()
