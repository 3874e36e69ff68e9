"""One decoding step of GPT-2's layers (768 wide, 12 heads) whose weights stream, on DE1_SOC.

    python benchmarks/decode.py     # benchmarks/results/decode.csv, minutes

Two layers with random weights, one-shot pruned to 20 % at 4 bits; the exact trace of the reference
machine gives the cycles of `espalier.perf`. `port_busy` is read beats over cycles.
"""

from __future__ import annotations

import csv
import datetime
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import espalier
from espalier.perf import simulate
from espalier.perf.trace import Step
from espalier.runtime.driver import Driver
from espalier.runtime.token_session import TokenSession
from espalier.spec.config import DE1_SOC
from espalier_sim.reference.device import open_reference

RESULTS = Path(__file__).parent / "results" / "decode.csv"
CONTEXTS = (1, 15, 31, 63, 100)
VOCABULARY = 96


def main() -> None:
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_layer=2, vocab_size=VOCABULARY, initializer_range=0.1, **ends)
    model = GPT2LMHeadModel(config).eval()
    ids = torch.randint(VOCABULARY, (1, 64))
    recipe = espalier.Recipe(density=0.2, weight_bits=4, allocation="uniform")
    batch = {"input_ids": ids, "use_cache": False}
    program = espalier.compile(
        espalier.compress(model, recipe, calibration=[batch]), max_length=128, config=DE1_SOC
    )
    steps: list[Step] = []
    transport = open_reference(observer=lambda *seen: steps.append(Step(*seen)))(program.config)
    session = TokenSession(Driver(transport, program), program)
    rows = []
    for context in CONTEXTS:
        session.restart()
        session.extend(np.arange(context) % VOCABULARY)
        steps.clear()
        session.extend(np.array([1]))
        timeline = simulate(program.config, steps)
        rows.append(
            {
                "date": datetime.date.today().isoformat(),
                "context": context,
                "cycles": timeline.cycles,
                "read_beats": timeline.read_beats,
                "write_beats": timeline.write_beats,
                "port_busy": round(timeline.read_beats / timeline.cycles, 3),
                "bytes_per_kept_weight": round(
                    16 * timeline.read_beats / sum(layer.kept for layer in program.layers), 3
                ),
            }
        )
        print(rows[-1])
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
