"""Tiny transformers with random weights, the same every time: for tests, without any files."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel


def bert(
    layers: int = 2, width: int = 32, heads: int = 2, vocabulary: int = 100, **options: object
) -> BertModel:
    """A BERT whose weights are large enough to make attention uneven."""
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        vocab_size=vocabulary,
        max_position_embeddings=40,
        initializer_range=0.2,
        **options,
    )
    return lively(BertModel(config)).eval()


def gpt2(
    layers: int = 2, width: int = 64, heads: int = 4, vocabulary: int = 65, **options: object
) -> GPT2LMHeadModel:
    """GPT-2 on characters."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=40,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.1,
        **options,
    )
    return lively(GPT2LMHeadModel(config)).eval()


def lively(model: nn.Module) -> nn.Module:
    """Biases and norms that are not all 0 and 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ids(samples: int = 3, tokens: int = 11, vocabulary: int = 65, seed: int = 1) -> Tensor:
    return torch.randint(
        vocabulary, (samples, tokens), generator=torch.Generator().manual_seed(seed)
    )
