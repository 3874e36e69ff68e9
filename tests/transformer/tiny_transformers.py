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


def encoder(layers: int = 1, width: int = 32, heads: int = 4, **options: object) -> nn.Module:
    """torch's own encoder, batch first unless told otherwise."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, heads, 2 * width, **{"batch_first": True, **options})
    return lively(nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)).eval()


class Plain(nn.Module):
    """A decoder as users write them: matmul and softmax, a mask buffer, positions as a parameter.

    `parts` chooses how queries, keys and values are split.
    """

    def __init__(self, width: int = 32, heads: int = 4, most: int = 20) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = heads
        self.tokens, self.positions = (
            nn.Embedding(65, width),
            nn.Parameter(torch.randn(most, width)),
        )
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 65, bias=False)
        self.register_buffer("mask", torch.ones(most, most).tril()[None, None])

    def attention(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).split(c, dim=2)
        q, k, v = (
            y.view(b, t, self.heads, -1).transpose(1, 2) for y in (q, k, v)
        )  # [B, nh, T, hs]
        scores = (q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5
        scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = torch.softmax(scores, dim=-1) @ v
        return self.out(y.transpose(1, 2).contiguous().view(b, t, c))

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        x = self.tokens(ids) * 32**0.5 + self.positions[: ids.shape[1]]
        x = x + self.attention(self.norm(x))
        x = x + self.down(torch.relu(self.up(self.norm2(x))))
        return {"logits": self.head(x), "hidden": x}
