"""The hardware's pattern: in every column each lane keeps the same number of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...spec.config import Config
from ..parts import Pattern


@dataclass(frozen=True, kw_only=True)
class ColumnBalanced(Pattern):
    """Each lane keeps k_j of its rows in column j; k_j is chosen per column.

    Parameters
    ----------
    lanes: row r lives in lane r mod lanes.
    arrays, group: columns are dealt to arrays in groups, and each array gets as many words.
    """

    lanes: int
    arrays: int = 1
    group: int = 8

    @classmethod
    def of(cls, config: Config) -> ColumnBalanced:
        """The pattern of an accelerator."""
        return cls(lanes=config.lanes, arrays=config.arrays, group=config.group)

    def mask(self, score: Tensor, density: float) -> Tensor:
        return column_balanced_mask(
            score - score.min().clamp(max=0), density, self.lanes, self.arrays, self.group
        )

    def reselect(self, score: Tensor, kept: Tensor) -> Tensor:
        return reselect_by_lane(score, kept, self.lanes)


def by_lane(score: Tensor, lanes: int, fill: float) -> Tensor:
    """Scores [M, N] as [slots, lanes, N], rows that do not exist filled."""
    height, width = score.shape
    slots = -(-height // lanes)
    padded = score.new_full((slots * lanes, width), fill)
    padded[:height] = score
    return padded.view(slots, lanes, width)


def reselect_by_lane(score: Tensor, kept: Tensor, lanes: int) -> Tensor:
    """In one column every lane keeps as many as it did, now those of the highest scores [M]."""
    words = by_lane(kept[:, None].long(), lanes, 0).sum(0)  # [lanes, 1]
    ranked = by_lane(score[:, None], lanes, -torch.inf).argsort(dim=0, descending=True, stable=True)
    return (ranked.argsort(0) < words).view(-1)[: len(kept)]


def array_of_columns(columns: int, arrays: int, group: int) -> Tensor:
    """The array [columns] that works on each column: groups are dealt round robin."""
    return torch.arange(columns) // group % arrays


def column_balanced_mask(
    score: Tensor, density: float, lanes: int, arrays: int, group: int
) -> Tensor:
    """Kept entries (bool [H, N]) of a matrix with scores >= 0 [H, N].

    Row i lies in lane i mod lanes. In column j every lane keeps its k_j rows of highest score (all
    its rows when it has fewer): k_j *words*. Words are given to columns by their marginal gain, the
    sum over lanes of the next-largest score; every array gets as many (or one more, or all that its
    columns have), so that arrays finish together. The number of kept entries is within one word
    (lanes entries) of density·H·N, and at least one word.
    """
    height, width = score.shape
    slots = -(-height // lanes)
    ranked, order = by_lane(score, lanes, -1.0).sort(dim=0, descending=True, stable=True)
    gains = ranked.clamp(min=0).sum(dim=1)  # [slots, N]
    entries = torch.full((slots,), lanes)
    entries[-1] = height - (slots - 1) * lanes
    words = _words_per_column(gains.cpu(), entries, density * height * width, arrays, group)
    rank = order.argsort(dim=0)
    kept = rank < words.to(score.device)
    return kept.view(slots * lanes, width)[:height].contiguous()


def _words_per_column(
    gains: Tensor, entries: Tensor, target: float, arrays: int, group: int
) -> Tensor:
    """k_j [N] for marginal gains [slots, N], entries per word [slots] and kept entries in all."""
    width = gains.shape[1]
    array = array_of_columns(width, arrays, group)
    queues = [_queue(gains, entries, (array == a).nonzero().flatten()) for a in range(arrays)]
    counts = _words_per_array(
        [sizes.tolist() for _, sizes, _ in queues], [g for *_, g in queues], target
    )
    words = torch.zeros(width, dtype=torch.int64)
    for (columns, _, _), count in zip(queues, counts, strict=True):
        words += torch.bincount(columns[:count], minlength=width)
    return words


def _queue(gains: Tensor, entries: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """An array's words by falling gain: columns, entries, gains; ties in the order of slots."""
    gain, order = gains[:, columns].flatten().sort(descending=True, stable=True)
    if not len(columns):
        return columns, columns, []
    return columns[order % len(columns)], entries[order // len(columns)], gain.tolist()


def _words_per_array(sizes: list[list[int]], gains: list[list[float]], target: float) -> list[int]:
    """How many words of its queue each array takes, for `target` entries in all."""
    level, total = 0, 0
    while True:
        step = sum(queue[level] for queue in sizes if level < len(queue))
        if not step or total + step > target + 1e-6:
            break
        level, total = level + 1, total + step
    counts = [min(level, len(queue)) for queue in sizes]
    rest = [a for a, queue in enumerate(sizes) if level < len(queue)]
    for a in sorted(rest, key=lambda a: -gains[a][level]):
        if total + sizes[a][level] / 2 <= target or total == 0:
            counts[a] += 1
            total += sizes[a][level]
    return counts
