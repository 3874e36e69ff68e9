"""Descriptors of keys and values: the columns that an EXPAND makes for attention's products."""

from __future__ import annotations

import numpy as np

from ...spec.isa import Expand
from ...spec.memory import descriptor
from ..packing import descriptor_bytes
from .placement import HeadLayout


def key_descriptors(layout: HeadLayout, tokens: int) -> bytes:
    """Descriptors of the keys of so many tokens, for every buffer."""
    words = 2 * -(-tokens // layout.config.lanes)
    columns = layout.together * layout.padded
    parts = [
        _words(layout, columns, buffer * layout.words, words, layout.product_groups)
        for buffer in range(layout.buffers)
    ]
    return descriptor_bytes(np.concatenate(parts, axis=1))


def value_descriptors(layout: HeadLayout) -> bytes:
    """Descriptors of all values, for every buffer: every head's columns begin at array 0."""
    parts = []
    config, words = layout.config, 2 * layout.context_slots
    groups = config.groups_per_array(layout.most_tokens)
    for buffer in range(layout.buffers):
        address = layout.expand(Expand.COLUMNS)["address"] + buffer * layout.words
        for head in range(layout.together):
            first = address + head * groups * config.group * words
            parts.append(_words(layout, layout.most_tokens, first, words, groups))
    return descriptor_bytes(np.concatenate(parts, axis=1))


def _words(layout: HeadLayout, columns: int, first: int, words: int, groups: int) -> np.ndarray:
    """[A, groups] descriptors of columns of `words` words each, dealt from array 0 on."""
    config, form = layout.config, descriptor(layout.config)
    result = np.zeros((config.arrays, groups), np.uint64)
    for array in range(config.arrays):
        for local in range(groups):
            column = (local * config.arrays + array) * config.group
            counts = {
                f"count{i}": words if column + i < columns else 0 for i in range(config.group)
            }
            base = first + local * config.group * words
            result[array, local] = form.pack({"base": base, **counts})
    return result
