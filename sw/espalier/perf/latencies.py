"""Cycles of the RTL that do not depend on sizes: held to its counters by a test."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec.isa import Sums


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Cycles of the RTL that do not depend on sizes."""

    start: int = 6
    """START to the first issue."""
    issue: int = 2
    """From one issue to the next."""
    jump: int = 1
    """More after a taken END."""
    engine_first_word: int = 10
    """Issue of a PRODUCT to its first word in an idle array."""
    engine_done: int = 2
    """Last word to completion."""
    vector: int = 33
    """Issue of a VECTOR to completion of a single chunk."""
    load: int = 8
    """Issue of a LOAD to its first burst."""
    load_done: int = 9
    """Last beat to completion."""
    load_items: int = 1
    """More from the last beat to completion for memories that are written item by item."""
    store: int = 8
    """Last chunk to the last burst's answer, memory latency aside."""
    reduction: int = 36
    """Last chunk of a reducing VECTOR to the start of its scalar, V/8 cycles aside."""
    port: int = 32
    """What a LOAD comes later while weights stream in."""
    write: int = 25
    """A chunk's way from being taken to the vector memory's write port."""
    memory: int = 20
    """DDR latency from a burst's address to its first beat (the simulated memory's default)."""

    def scalar(self, kind: Sums, gain: int) -> int:
        """Cycles from one scalar's start to the next one's: a bit of root or quotient each."""
        if kind is Sums.MAXIMUM:
            return 3 + gain
        if kind is Sums.MASS:
            return 46 + gain
        return 112 + 2 * gain
