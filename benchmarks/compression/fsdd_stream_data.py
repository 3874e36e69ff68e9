"""Continuous speech from single digits: recordings of a speaker, one by one, with pauses.

A pause is PAUSE_S seconds (of even distribution) of noise, also before the first digit and behind
the last one. Its level is the speaker's own: the root mean square that 5 % of the 20 ms pieces of
the speaker's training recordings do not reach; where a recording begins and ends, its level may
jump. A digit is to be told from the state HOP samples after its end, and earlier digits are still
in that state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fsdd_data import OFFICIAL, load, masks
from log_mel import RATE_HZ, WINDOW, log_mel
from torch import Tensor

HOP = 80
"""Frames every 10 ms."""
PAUSE_S = 0.2, 0.4
DIGITS = 4
PIECE = 160
QUIET_PERCENT = 5
SEED = 0


@dataclass(frozen=True)
class Stream:
    """Features [T, BANDS]; frames [K] at which digits [K] are told; speech [T], False in pauses."""

    features: Tensor
    ends: Tensor
    digits: Tensor
    speech: Tensor


class StreamBatches:
    """Batches of padded streams in random order: x [B, T, BANDS], ends and digits [B, K]."""

    def __init__(self, streams: list[Stream], size: int) -> None:
        self.streams, self.size = streams, size

    def __len__(self) -> int:
        return -(-len(self.streams) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for index in torch.randperm(len(self.streams)).split(self.size):
            yield collate([self.streams[i] for i in index.tolist()])


def collate(streams: list[Stream]) -> tuple[Tensor, Tensor, Tensor]:
    """Streams of equally many digits, padded behind their ends."""
    x = torch.nn.utils.rnn.pad_sequence([s.features for s in streams], batch_first=True)
    ends, digits = (torch.stack([getattr(s, part) for s in streams]) for part in ("ends", "digits"))
    return x, ends, digits


def read_streams(folder: Path, digits: int = DIGITS) -> dict[str, list[Stream]]:
    """Streams of training, validation and test, all of `digits` digits; the same every time.

    Features have mean 0 and deviation 1 in every band of the training streams' frames.
    """
    data, rng = load(folder), np.random.default_rng(SEED)
    names = "training", "validation", "test"
    parts = dict(zip(names, masks(data, OFFICIAL), strict=True))
    levels = [quiet(data, parts["training"] & (data["speaker"] == s)) for s in _speakers(data)]
    raw = {name: _streams(data, mask, levels, digits, rng) for name, mask in parts.items()}
    frames = np.concatenate([features for features, *_ in raw["training"]])
    mean, deviation = frames.mean(0), frames.std(0)
    return {
        name: [Stream(torch.from_numpy((x - mean) / deviation), *rest) for x, *rest in streams]
        for name, streams in raw.items()
    }


def _speakers(data: dict[str, np.ndarray]) -> range:
    return range(int(data["speaker"].max()) + 1)


def recording(data: dict[str, np.ndarray], number: int) -> np.ndarray:
    first, end = data["offsets"][number : number + 2]
    return data["samples"][first:end]


def quiet(data: dict[str, np.ndarray], mask: np.ndarray) -> float:
    """Root mean square of the quietest pieces of some recordings, as samples."""
    levels = [0.0]
    for number in mask.nonzero()[0]:
        samples = recording(data, number).astype(float)
        pieces = samples[: len(samples) // PIECE * PIECE].reshape(-1, PIECE)
        levels += np.sqrt((pieces**2).mean(1)).tolist()
    return float(np.percentile(levels, QUIET_PERCENT))


def _streams(
    data: dict[str, np.ndarray],
    mask: np.ndarray,
    levels: list[float],
    digits: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, Tensor, Tensor, Tensor]]:
    """Each speaker's recordings in random order, dealt to streams; what is left over goes."""
    result = []
    for speaker in _speakers(data):
        numbers = rng.permutation((mask & (data["speaker"] == speaker)).nonzero()[0])
        for first in range(0, len(numbers) - digits + 1, digits):
            chosen = numbers[first : first + digits]
            result.append(_stream(data, chosen, levels[speaker], rng))
    return result


def _stream(
    data: dict[str, np.ndarray], numbers: np.ndarray, level: float, rng: np.random.Generator
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    pieces, spans, at = [], [], 0
    for number in [*numbers, None]:
        pause = rng.normal(0, level, int(rng.uniform(*PAUSE_S) * RATE_HZ))
        pieces.append(np.clip(np.rint(pause), -32768, 32767).astype(np.int16))
        at += len(pause)
        if number is not None:
            pieces.append(recording(data, number))
            spans.append((at, at + len(pieces[-1])))
            at += len(pieces[-1])
    features = log_mel(np.concatenate(pieces), HOP)
    middles = np.arange(len(features)) * HOP + WINDOW // 2
    speech = np.any([(first <= middles) & (middles < end) for first, end in spans], axis=0)
    ends = torch.tensor([end // HOP + 1 for _, end in spans])  # this frame begins behind the end
    digits = torch.from_numpy(data["digit"][numbers].astype(np.int64))
    return features, ends, digits, torch.from_numpy(speech)
