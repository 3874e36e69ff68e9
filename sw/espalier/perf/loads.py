"""When LOADs and EXPANDs start and end: the loader's two channels and what holds them up.

Items come one a cycle, weights one beat. Beside weights a LOAD of items comes later and holds them
up by its own beats. Items for the vector and sum memories wait for every chunk that passes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..spec import expansion
from ..spec.config import BEAT_BYTES, Config
from ..spec.isa import Expand, Instruction, Opcode
from ..spec.memory import Memory
from .latencies import Latencies

BLOCKED = (Memory.VECTOR, Memory.SUMS)
"""Memories that share a write port with the chunks."""


def channel(i: Instruction) -> str:
    """The unit of a LOAD or EXPAND."""
    weights = i.opcode is Opcode.EXPAND or i["memory"] == Memory.WEIGHTS
    return "weights" if weights else "load"


@dataclass
class _Items:
    """A LOAD into the vector unit's memories: first and last cycle of its writes, and its place
    among the LOADs."""

    start: float
    end: float
    number: int


class Loads:
    """Ends of LOADs and EXPANDs go to `done`, latest last."""

    def __init__(self, config: Config, latencies: Latencies, done: dict[str, deque[float]]):
        self.config, self.latencies, self.done = config, latencies, done
        self.free = {"load": 0.0, "weights": 0.0}
        self.stream = 0.0
        """When the last LOAD of weights began to arrive."""
        self.count = 0
        self.items: deque[_Items] = deque(maxlen=3)
        self.chunks: deque[tuple[float, float, float]] = deque(maxlen=8)
        """First and last cycle of recent chunks at the write port, and their share of it."""

    def take(self, at: float, i: Instruction, beats: int) -> None:
        """The instruction issues at `at` and moves `beats`."""
        if i.opcode is Opcode.EXPAND:
            self._weights(at, max(self._expand(i, beats), beats))
        elif channel(i) == "weights":
            self.stream = self._weights(at, beats)
        else:
            self._load(at, i, beats)

    def _weights(self, at: float, cycles: int) -> float:
        t = self.latencies
        start = max(at + t.load + t.memory, self.free["weights"])
        self.free["weights"] = start + cycles
        self.done["weights"].append(start + cycles + t.load_done)
        return start

    def _load(self, at: float, i: Instruction, beats: int) -> None:
        t = self.latencies
        items = i["memory"] != Memory.PROGRAM
        cycles = max(i["count"], beats) if items else beats
        if i["memory"] == Memory.DESCRIPTORS:
            cycles = 2 * beats
        start = max(at + t.load + t.memory, self.free["load"])
        start += self._share(at + t.load, start, beats)
        end = start + cycles
        self.count += 1
        if i["memory"] in BLOCKED:
            for first, last, share in self.chunks:
                if first < end:
                    end += share * max(last - max(first, start), 0)
            self.items.append(_Items(start, end, self.count))
        self.free["load"] = end
        self.done["load"].append(end + t.load_done + items * t.load_items)

    def _share(self, asked: float, start: float, beats: int) -> float:
        """A LOAD beside one of weights comes behind the beats already asked for, and holds the
        weights up; returns its own delay."""
        end = self.free["weights"]
        if not self.stream - self.latencies.memory < start < end:
            return 0
        self.free["weights"] += beats
        self.done["weights"][-1] += beats
        return min(end - asked, self.latencies.port)

    def chunks_pass(self, first: float, last: float, chunks: int) -> None:
        """A VECTOR takes `chunks` in from `first` to `last`: later they pass the write port, and
        items wait."""
        if last <= first:
            return
        first, last = first + self.latencies.write, last + self.latencies.write
        share = min(chunks / (last - first), 1)
        self.chunks.append((first, last, share))
        for items in self.items:
            if items.end > first:
                late = share * max(last - max(first, items.start), 0)
                items.end += late
                self._delay(items.number, late)

    def _delay(self, number: int, late: float) -> None:
        """LOAD `number` and all behind it end later."""
        done = self.done["load"]
        for back in range(min(self.count - number + 1, len(done))):
            done[-1 - back] += late
        self.free["load"] += late
        for items in self.items:
            if items.number > number:
                items.start += late
                items.end += late

    def _expand(self, i: Instruction, beats: int) -> int:
        """Cycles of an EXPAND: a quad of keys, or a plane of an item of values, is written in
        one."""
        c = self.config
        tokens = beats * BEAT_BYTES // expansion.row_bytes(i.fields, c)
        height = expansion.height(i.fields, c, tokens)
        if i["kind"] == Expand.ROWS:
            return height * c.lanes // 4 * i["heads"] * i["groups"] * c.group * 2
        return tokens * i["heads"] * -(-height * c.lanes // c.group) * 2
