"""Free Spoken Digit Dataset: features, splits and batches of recordings of different lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from log_mel import BANDS, log_mel
from study_errors import DataError
from torch import Tensor

FILE = "fsdd.npz"
ARRAYS = ("samples", "offsets", "digit", "speaker", "take", "speakers")
OFFICIAL = "official"
TEST_TAKES, VALIDATION_TAKES = range(0, 5), range(5, 10)
BUCKET = 16
"""Batches that are sorted by length together: little padding, and still a new mix every epoch."""


@dataclass(frozen=True)
class Recordings:
    """Features [T, BANDS] of each recording, and its digit."""

    features: list[Tensor]
    digits: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def padded(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Some recordings [B] as x [B, T, BANDS], zeros behind the end; lengths and digits [B]."""
        chosen = [self.features[i] for i in index.tolist()]
        lengths = torch.tensor([len(x) for x in chosen])
        return (
            torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True),
            lengths,
            self.digits[index],
        )


@dataclass(frozen=True)
class Split:
    """What trains, what chooses, and what is looked at once."""

    training: Recordings
    validation: Recordings
    test: Recordings


class Batches:
    """Batches of similar lengths in random order, iterable again and again.

    The order follows torch's default random generator. With `scores` [N, 10], what a teacher says
    of the recordings, each batch has its share of them as a fourth tensor.
    """

    def __init__(self, recordings: Recordings, size: int, scores: Tensor | None = None) -> None:
        self.recordings, self.size, self.scores = recordings, size, scores

    def __len__(self) -> int:
        return -(-len(self.recordings) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        lengths = torch.tensor([len(x) for x in self.recordings.features])
        batches: list[Tensor] = []
        for bucket in torch.randperm(len(self.recordings)).split(BUCKET * self.size):
            batches += bucket[lengths[bucket].argsort()].split(self.size)
        for i in torch.randperm(len(batches)).tolist():
            extra = () if self.scores is None else (self.scores[batches[i]],)
            yield (*self.recordings.padded(batches[i]), *extra)


def load(folder: Path) -> dict[str, np.ndarray]:
    """The data set's arrays. Raises DataError when they are not there."""
    path = folder / FILE
    if not path.exists():
        raise DataError(
            f"--data must name a folder with {FILE} (Free Spoken Digit Dataset as arrays "
            f"{', '.join(ARRAYS)}); there is none in {folder}"
        )
    try:
        with np.load(path) as file:
            return {name: file[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} must have arrays {', '.join(ARRAYS)}: {error}") from error


def masks(data: dict[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which recordings train, validate and test.

    `split` is "official" (takes 0-4 test) or a speaker's name: all of that speaker's recordings are
    the test, and nothing else of the speaker is used. Takes 5-9 of the rest validate, 10-49 train.
    """
    take, names = data["take"], data["speakers"].tolist()
    if split == OFFICIAL:
        test, others = np.isin(take, TEST_TAKES), np.ones(len(take), bool)
    elif split in names:
        test = data["speaker"] == names.index(split)
        others = ~test
    else:
        raise DataError(
            f"split must be {OFFICIAL} or a speaker ({', '.join(names)}), not {split!r}"
        )
    validation = others & np.isin(take, VALIDATION_TAKES)
    training = others & (take >= VALIDATION_TAKES.stop)
    return training, validation, test


def read(folder: Path, split: str = OFFICIAL) -> Split:
    """Features with mean 0 and deviation 1 in every band of the training recordings' frames."""
    data = load(folder)
    pieces = np.split(data["samples"], data["offsets"][1:-1])
    features = [log_mel(piece) for piece in pieces]
    chosen = masks(data, split)
    training = np.concatenate([x for x, wanted in zip(features, chosen[0], strict=True) if wanted])
    mean, deviation = training.mean(0), training.std(0)
    tensors = [torch.from_numpy((x - mean) / deviation) for x in features]
    digits = torch.from_numpy(data["digit"].astype(np.int64))
    return Split(*(_select(tensors, digits, mask) for mask in chosen))


def _select(features: list[Tensor], digits: Tensor, mask: np.ndarray) -> Recordings:
    index = mask.nonzero()[0]
    return Recordings([features[i] for i in index], digits[index])


__all__ = ["BANDS", "Batches", "DataError", "Recordings", "Split", "load", "masks", "read"]
