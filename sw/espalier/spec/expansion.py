"""Sizes of an EXPAND: what it reads from DDR and what it takes of the weight memory.

`fields` are the instruction's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from .config import BEAT_BYTES, Config
from .isa import Expand, Store
from .stores import stored_bytes


def height(fields: Mapping[str, int], config: Config, tokens: int) -> int:
    """Words of one digit plane of a column that an EXPAND of `tokens` writes."""
    rows = tokens if fields["kind"] == Expand.ROWS else fields["groups"] * config.group
    return -(-rows // config.lanes)


def words(fields: Mapping[str, int], config: Config, tokens: int) -> int:
    """Words in each array that an EXPAND of `tokens` takes."""
    tall, groups = height(fields, config, tokens), fields["heads"] * fields["groups"]
    if fields["kind"] == Expand.COLUMNS:
        groups = fields["heads"] * config.arrays * config.groups_per_array(tokens)
    return -(-groups // config.arrays) * config.group * 2 * tall


def row_bytes(fields: Mapping[str, int], config: Config) -> int:
    """Bytes of a token's row in DDR: how a VECTOR stores its columns."""
    chunks = config.chunks(fields["heads"] * fields["groups"] * config.group)
    return stored_bytes(config, Store.COLUMNS, chunks)


def extent(fields: Mapping[str, int], config: Config, tokens: int) -> int:
    """Bytes in DDR from the first row of an EXPAND of `tokens` to the end of the last one."""
    size = row_bytes(fields, config)
    return tokens * size + (tokens - 1) * fields["gap"] * BEAT_BYTES
