"""Where the passes' weights lie, so that most of a pass's come in while the one before runs.

A word that the pass before does not use can be loaded beside it. Passes follow each other round and
round (a block runs once a layer), and each takes one range of addresses; the ranges are moved
until as few words as possible are shared by neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

from .attention import AttentionPass
from .tokenpass import Range, TokenPass

Pass = TokenPass | AttentionPass
ROUNDS = 8
"""Times that every pass is moved; the search has come to rest long before."""


def settle(blocks: Sequence[Sequence[Pass]], repeats: Sequence[int]) -> None:
    """Choose addresses, and what of every pass is loaded early."""
    before = _predecessors(blocks, repeats)
    movable = [one for one in before if isinstance(one, TokenPass) and one.data.blocks]
    for _ in range(ROUNDS):
        for one in movable:
            _move(one, before)
    for one in movable:
        earlier, one.early, one.late = before[one], [], [one.weights]
        tiled = isinstance(earlier, TokenPass) and earlier.tiles > 1
        if earlier is None or tiled or one.tiles > 1:
            continue
        one.early = _outside(one.weights, earlier.weights)
        one.late = [part] if (part := _shared(one.weights, earlier.weights)) else []


def _predecessors(
    blocks: Sequence[Sequence[Pass]], repeats: Sequence[int]
) -> dict[Pass, Pass | None]:
    """The pass before every pass: before the first one of a repeated block, that block's last;
    before the one behind a repeated block none, because what that block loads early is its own."""
    result: dict[Pass, Pass | None] = {}
    last: Pass | None = None
    for block, times in zip(blocks, repeats, strict=True):
        last = block[-1] if times > 1 else last
        for one in block:
            result[one] = last
            last = one
        last = None if times > 1 else last
    return result


def _move(one: TokenPass, before: dict[Pass, Pass | None]) -> None:
    """To the address where it shares fewest words with its neighbours."""
    depth, size = one.context.config.weight_depth, one.data.size
    others = [before[one], *(later for later, earlier in before.items() if earlier is one)]
    ranges = [other.weights for other in others if other not in (None, one)]
    places = [one.data.base, 0, depth - size]
    places += [place for first, end in ranges for place in (end, first - size)]

    def cost(base: int) -> int:
        shared = (_shared((base, base + size), other) for other in ranges)
        return sum(part[1] - part[0] for part in shared if part)

    one.data.move(min((p for p in places if 0 <= p <= depth - size), key=cost))


def _shared(a: Range, b: Range) -> Range | None:
    first, end = max(a[0], b[0]), min(a[1], b[1])
    return (first, end) if first < end else None


def _outside(a: Range, b: Range) -> list[Range]:
    """The parts of `a` that are not in `b`."""
    parts = [(a[0], min(a[1], b[0])), (max(a[0], b[1]), a[1])]
    return [(first, end) for first, end in parts if first < end]
