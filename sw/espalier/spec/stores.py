"""Sizes of what a VECTOR sends to DDR."""

from __future__ import annotations

from .config import BEAT_BYTES, ITEM_BYTES, Config
from .isa import Store


def stored_bytes(config: Config, kind: Store, chunks: int) -> int:
    """DDR bytes that a VECTOR of so many chunks writes: whole beats, padding included."""
    chunk_bytes = {
        Store.NONE: 0,
        Store.VALUES: 2 * config.vector_lanes,
        Store.SUMS: 4 * config.vector_lanes,
        Store.COLUMNS: ITEM_BYTES * config.chunk_groups,
    }
    return -(-chunks * chunk_bytes[kind] // BEAT_BYTES) * BEAT_BYTES
