"""Tiny Shakespeare as characters: a part that trains, one that chooses, one that is looked at once,
and windows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from study_errors import DataError
from torch import Tensor

FILE = "tinyshakespeare.txt"
CONTEXT = 64
VALIDATION, TEST = 0.05, 0.1
"""Shares of the text: its last tenth, nanoGPT's validation, is the test; before it, validation."""
EPOCH = 100
"""Batches whose windows are drawn together."""


@dataclass(frozen=True)
class Text:
    """Characters as numbers [N] of `alphabet`, in three parts."""

    alphabet: str
    training: Tensor
    validation: Tensor
    test: Tensor


def read(folder: Path) -> Text:
    """The text in its order. Raises DataError when the file is missing or too short to be split."""
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"--data must name a folder with {FILE} (char-rnn's); there is no {path}")
    text = path.read_text()
    least = round(2 * (CONTEXT + 1) / VALIDATION)
    if len(text) < least:
        raise DataError(f"{path} must have at least {least} characters, not {len(text)}")
    alphabet = "".join(sorted(set(text)))
    number = {character: i for i, character in enumerate(alphabet)}
    whole = torch.tensor([number[character] for character in text])
    cuts = [round(len(whole) * (1 - TEST - VALIDATION)), round(len(whole) * (1 - TEST))]
    return Text(alphabet, *whole.tensor_split(cuts))


def windows(part: Tensor) -> Tensor:
    """All of a part [windows, CONTEXT + 1]: each predicts CONTEXT characters, none twice."""
    return part.unfold(0, CONTEXT + 1, CONTEXT)


class Batches:
    """Random windows [size, CONTEXT + 1] without end; places follow torch's random generator."""

    def __init__(self, part: Tensor, size: int) -> None:
        self.part, self.size = part, size

    def __iter__(self) -> Iterator[Tensor]:
        starts = torch.randint(len(self.part) - CONTEXT, (EPOCH, self.size, 1))
        for each in starts + torch.arange(CONTEXT + 1):
            yield self.part[each]
