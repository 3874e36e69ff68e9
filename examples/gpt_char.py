"""GPT-2 on the accelerator: trains a small `GPT2LMHeadModel` on the characters of Python's own help
texts, compresses it, and writes text token by token.

    python examples/gpt_char.py --device reference --tokens 200

needs `pip install 'espalier[torch,sim,transformers]'`; about a minute of training on two cores.
"""

from __future__ import annotations

import argparse
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # Hugging Face's classes only, nothing is fetched

import pydoc_data.topics

import torch
from rich.progress import track
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

import espalier
from espalier.spec.config import SMALL

CONTEXT = 64
torch.manual_seed(0)


def corpus() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """(training, validation) characters as indices, and the alphabet; 5 % are for validation."""
    topics = pydoc_data.topics.topics
    text = "".join(topics[name] for name in sorted(topics))
    alphabet = sorted({c for c in text if c.isascii()})
    number = {c: i for i, c in enumerate(alphabet)}
    indices = torch.tensor([number[c] for c in text if c in number])
    cut = len(indices) * 95 // 100
    return indices[:cut], indices[cut:], alphabet


def windows(text: torch.Tensor, count: int, length: int = CONTEXT) -> torch.Tensor:
    """Random windows [count, length + 1]."""
    starts = torch.randint(len(text) - length - 1, (count, 1))
    return text[starts + torch.arange(length + 1)]


def loss_of(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def train(model: GPT2LMHeadModel, text: torch.Tensor, steps: int, what: str, rate: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in track(range(steps), what):
        batch = windows(text, 16)
        optimizer.zero_grad()
        loss_of(model(batch[:, :-1], use_cache=False).logits, batch).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="reference", help="`espalier devices` lists them")
    parser.add_argument("--steps", type=int, default=600, help="training steps")
    parser.add_argument("--tokens", type=int, default=200, help="characters to write")
    parser.add_argument("--bits", type=int, default=8, choices=(4, 8), help="weight bits")
    parser.add_argument("--density", type=float, default=1.0, help="share of the weights to keep")
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()

    training, validation, alphabet = corpus()
    size = {"n_layer": options.layers, "n_embd": 64, "n_head": 4, "n_positions": 512}
    config = GPT2Config(vocab_size=len(alphabet), bos_token_id=0, eos_token_id=0, **size)
    model = GPT2LMHeadModel(config)
    train(model, training, options.steps, "training", 3e-3)

    held_out = windows(validation, 16)
    inputs = held_out[:, :-1]
    with torch.no_grad():
        dense = loss_of(model(inputs, use_cache=False).logits, held_out)
    calibration = [{"input_ids": row[None], "use_cache": False} for row in windows(training, 8)]
    recipe = espalier.Recipe(density=options.density, weight_bits=options.bits, config=SMALL)
    small = espalier.compress(model, recipe, calibration=calibration)
    with torch.no_grad():
        rounded = loss_of(small(input_ids=inputs)["logits"], held_out)
    print(
        f"validation loss, nats a character: {dense:.4f} in floating point, {rounded:.4f} with "
        f"{options.bits}-bit weights and 8-bit columns"
    )

    program = espalier.compile(small, max_length=192, config=SMALL)
    number = {c: i for i, c in enumerate(alphabet)}
    prompt = "The import statement"
    with espalier.open(options.device) as device:
        session = device.load(program)
        print(prompt, end="", flush=True)
        tokens = [number[c] for c in prompt]
        count = min(options.tokens, 192 - len(tokens))
        for token in session.generate(tokens, count, temperature=0.7, top_k=12, seed=1):
            print(alphabet[token], end="", flush=True)
        print()


if __name__ == "__main__":
    main()
