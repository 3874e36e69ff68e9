"""The pruning pattern: in every column each lane keeps the same number of its rows."""

from __future__ import annotations

import torch
from torch import Tensor


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
    padded = score.new_full((slots * lanes, width), -1.0)
    padded[:height] = score
    by_lane = padded.view(slots, lanes, width)
    ranked, order = by_lane.sort(dim=0, descending=True, stable=True)
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
