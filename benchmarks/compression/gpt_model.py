"""The character model, and how well it predicts a text."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from gpt_data import CONTEXT, windows
from study_errors import DataError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SIZE = {"n_layer": 4, "n_head": 4, "n_embd": 128}
"""nanoGPT's setting for a CPU: 786,432 weights in matrices."""
EVALUATION_BATCH = 64


def new_model(characters: int) -> nn.Module:
    """An untrained GPT2LMHeadModel without dropout. Raises DataError without transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        raise DataError("this study needs transformers: pip install transformers") from error
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(
        vocab_size=characters,
        n_positions=CONTEXT,
        use_cache=False,
        activation_function="gelu_pytorch_tanh",  # gelu_new in one operator
        **SIZE,
        **no_dropout,
        **ends,
    )
    return GPT2LMHeadModel(config)


def scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits [B, T, characters] of a float model, or of one with the machine's integers."""
    return model(input_ids=inputs)["logits"]


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of windows [B, T + 1]."""
    return cross_entropy(scores(model, batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def entropies(model: nn.Module, part: Tensor, most: int | None = None) -> np.ndarray:
    """Mean cross-entropy (nats) of each window [windows] of a part, or of its first `most`."""
    each = []
    for batch in windows(part)[:most].split(EVALUATION_BATCH):
        logits = scores(model, batch[:, :-1])
        loss = cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none")
        each.append(loss.mean(1))
    return torch.cat(each).numpy()


def sample_inputs(part: Tensor, count: int) -> list[dict[str, Any]]:
    """Inputs of `count` windows spread over a part, one by one, as calibration."""
    chosen = windows(part)
    step = max(1, len(chosen) // count)
    return [{"input_ids": row[None, :-1]} for row in chosen[::step][:count]]
