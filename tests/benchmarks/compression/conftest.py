"""Data in small: like FSDD, each digit a tone of its own, with noise; like SST-2, sentences of two
kinds of words and a small BERT that reads them."""

import random

import numpy as np
import pytest
import torch

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES, RATE_HZ = 13, 8000
WORDS = {0: ["bad", "dull", "weak"], 1: ["good", "fine", "warm"]}
FILLERS = [f"w{i}" for i in range(60)]


def tone(rng, digit):
    n = rng.integers(1200, 2400)
    wave = np.sin(2 * np.pi * (300 + 300 * digit) * np.arange(n) / RATE_HZ)
    return (8000 * wave + 300 * rng.standard_normal(n)).astype(np.int16)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder with fsdd.npz: two speakers, 10 digits, 13 takes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    place = np.array([(d, s, t) for d in range(10) for s in (0, 1) for t in range(TAKES)])
    pieces = [tone(rng, digit) for digit, _, _ in place]
    np.savez(
        folder / "fsdd.npz",
        samples=np.concatenate(pieces),
        offsets=np.cumsum([0, *map(len, pieces)]),
        speakers=np.array(SPEAKERS),
        **{
            name: place[:, i].astype(np.uint8)
            for i, name in enumerate(("digit", "speaker", "take"))
        },
    )
    return folder


def sentence(rng, label):
    words = rng.choices(FILLERS, k=rng.randint(3, 20)) + rng.choices(WORDS[label], k=3)
    rng.shuffle(words)
    return " ".join(words)


def write_rows(path, count, seed):
    rng = random.Random(seed)
    lines = [f"{i % 2}\t{sentence(rng, i % 2)}" for i in range(count)]
    path.write_text("label\tsentence\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder with both files and one with a small BERT and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path_factory.mktemp("sst2")
    write_rows(folder / "sst2_train.tsv", 600, 0)
    write_rows(folder / "sst2_dev.tsv", 80, 1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *WORDS[0], *WORDS[1]]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    encoder = folder / "encoder"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(encoder)
    tokenizer.save(str(encoder / "tokenizer.json"))
    return folder, encoder
