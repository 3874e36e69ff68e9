"""What a transformer's program tells the host: buffers and registers of a run over tokens.

A run takes T tokens that follow the `position` tokens of earlier runs, at most `most_tokens` in
all. In the window lie, after the image: input and output rows, one a token; the record, in which
the program keeps what passes between its loops; the cache of keys and values, which stays from run
to run. Input and record have `AHEAD` more rows behind the last one, which are read or written but
never used, and the record as many before the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .config import BEAT_BYTES


class Register(IntEnum):
    """What the host writes into the sequencer's registers before a run."""

    TOKENS = 0
    """T."""
    INPUT = 1
    """Address of the first input row."""
    OUTPUT = 2
    """Address of the first output row."""
    RECORD = 3
    """Address of the first token's record."""
    ROW = 4
    """Address of row `position` in the first layer of the cache."""
    CACHE = 5
    """Address of the cache."""
    SEEN = 6
    """position + T: tokens that have keys and values."""
    SETS = 7
    """Address of the descriptors for the keys of so many tokens (`TokenPlan.sets`)."""
    VISIBLE = 8
    """position + 1: tokens that the first one of this run may see in causal attention."""
    PAIRS = 9
    """T div 2."""
    ODD = 10
    """T mod 2."""


AHEAD = 4
"""Rows on either side of a buffer's own."""


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """Sizes of a token program's buffers.

    Parameters
    ----------
    most_tokens: longest sequence.
    record_bytes: a token's record.
    row_bytes: a row of the cache, one token's keys and values in one layer.
    cache_bytes: the cache: most_tokens rows for every layer.
    sets: offset in the image of the first set of key descriptors; set_bytes: size of a set;
        set_tokens: the n-th set (from 0) serves up to (n + 1)·set_tokens tokens.
    causal: whether a sequence can be continued by further runs (all attention is causal).
    """

    most_tokens: int
    record_bytes: int
    row_bytes: int
    cache_bytes: int
    sets: int
    set_bytes: int
    set_tokens: int
    causal: bool

    def __post_init__(self) -> None:
        if not 1 <= self.most_tokens < 1 << 12:
            raise ValueError(f"most_tokens must be in 1..{(1 << 12) - 1}, not {self.most_tokens}")
        for name in ("record_bytes", "row_bytes", "cache_bytes", "sets", "set_bytes"):
            value = getattr(self, name)
            if value % BEAT_BYTES or not 0 <= value < 1 << 30:
                raise ValueError(
                    f"{name} must be a multiple of {BEAT_BYTES} below 2^30, not {value}"
                )
        if self.set_tokens < 1:
            raise ValueError(f"set_tokens must be at least 1, not {self.set_tokens}")

    def registers(
        self, position: int, tokens: int, places: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> dict[int, int]:
        """What to write before a run of `tokens` that follow `position` tokens; places are the
        addresses of input, output, first record and cache."""
        seen = position + tokens
        first_input, output, record, cache = places
        return {
            Register.TOKENS: tokens,
            Register.INPUT: first_input,
            Register.OUTPUT: output,
            Register.RECORD: record,
            Register.ROW: cache + position * self.row_bytes,
            Register.CACHE: cache,
            Register.SEEN: seen,
            Register.SETS: self.sets + (seen - 1) // self.set_tokens * self.set_bytes,
            Register.VISIBLE: position + 1,
            Register.PAIRS: tokens // 2,
            Register.ODD: tokens % 2,
        }
