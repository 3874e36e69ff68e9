"""When each instruction starts and ends: the units' throughputs and latencies as the RTL has them.

Instructions issue in order, one every `issue` cycles, each when the units it waits for are far
enough. A unit runs its instructions in order: the engine's arrays each on their own, at one weight
word a cycle; the vector unit one chunk (or one plane of it) a cycle; the loader one beat of weights
or one item a cycle; the store one beat a cycle. A drained slot takes one cycle away from every
array. The constants are latencies of the RTL, held to its counters by a test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..spec import isa
from ..spec.config import SCALARS, Config
from ..spec.isa import Instruction, Mode, Opcode, Scale, Source, Store, Sums
from .latencies import Latencies
from .loads import Loads, channel
from .trace import Step

REDUCED_LANES = 8
"""Lanes that a reducing VECTOR takes a cycle, at most."""
SCALAR_RELEASE = 5
"""Cycles before a scalar's end in which who reads it may begin."""
REDUCTIONS = 2
"""Reductions between their first chunk and the start of their scalar, at most."""
STORE_CHUNKS = 33
"""Chunks that the vector unit can put out before the bus has taken any."""
Interval = tuple[float, float]
"""First and last cycle."""


@dataclass
class Timeline:
    """Result of `simulate`: all in cycles but words, operations and beats."""

    cycles: int = 0
    product_cycles: int = 0
    words: float = 0
    read_beats: int = 0
    write_beats: int = 0
    issued: list[int] = field(default_factory=list)
    """Issue cycle of every step, in order."""
    products: list[Interval] = field(default_factory=list)
    """Of every PRODUCT, in order: from its issue to its completion."""
    vectors: list[Interval] = field(default_factory=list)
    """Of every VECTOR, in order: from its issue, or the last chunk of the one before, to its own
    last chunk."""


KEPT = 4
"""Instructions of a unit whose ends are remembered: waits and queues look back no further."""


def simulate(config: Config, steps: Iterable[Step], latencies: Latencies | None = None) -> Timeline:
    """Cycles that a trace takes on the RTL of `config`."""
    clock = _Clock(config, latencies or Latencies())
    for step in steps:
        clock.execute(step)
    return clock.finish()


class _Clock:
    """Issue time and the busy intervals of every unit, advanced one instruction at a time."""

    def __init__(self, config: Config, latencies: Latencies):
        self.config, self.latencies = config, latencies
        self.now = latencies.start
        self.done: dict[str, deque[float]] = {unit: deque(maxlen=KEPT) for unit in isa.UNITS}
        """When the last instructions of every unit have completed."""
        self.loads = Loads(config, self.latencies, self.done)
        self.arrays = np.zeros(config.arrays)
        """When each array is free for the next product's words."""
        self.free = dict.fromkeys(("vector", "store", "scalar"), 0.0)
        self.written = [0.0, 0.0]
        """When the last scalars of both halves are written."""
        self.taken: deque[float] = deque(maxlen=KEPT)
        """When VECTORs have made room in the unit's queue: their last chunk is taken in."""
        self.reductions: list[float] = []
        """When the last reductions' scalars began."""
        self.drains: list[tuple[float, float, float]] = []
        """Recent drains: first and last cycle, share of the cycles between that arrays lose."""
        self.result = Timeline()

    def execute(self, step: Step) -> None:
        i = step.instruction
        units = _units(i)
        at = max(self.now, self._released(i, units))
        self.result.issued.append(at)
        self.now = at + self.latencies.issue
        if i.opcode is Opcode.PRODUCT:
            self._product(at, i, step.work)
        elif i.opcode is Opcode.VECTOR:
            self._vector(at, i, *(int(n) for n in step.work))
        elif i.opcode in (Opcode.LOAD, Opcode.EXPAND):
            self.loads.take(at, i, int(step.work))
            self.result.read_beats += int(step.work)
        elif i.opcode is Opcode.END:
            self.now += self.latencies.jump

    def _released(self, i: Instruction, units: tuple[str, ...]) -> float:
        """When the waits and the queues of the units concerned let the instruction issue."""
        times = [0.0]
        for unit in isa.UNITS:
            limit = i.fields.get(f"wait_{unit}", isa.NO_WAIT)
            if limit < isa.NO_WAIT and len(self.done[unit]) > limit:
                times.append(self.done[unit][-1 - limit] + 1)
            left = self.taken if unit == "vector" else self.done[unit]
            if unit in units and len(left) > isa.QUEUE_DEPTH:
                times.append(left[-1 - isa.QUEUE_DEPTH])
        if i.opcode is Opcode.HALT:
            times += [done[-1] + 1 for done in self.done.values() if done]
        return max(times)

    def _product(self, at: float, i: Instruction, work: np.ndarray) -> None:
        c, t = self.config, self.latencies
        visits, words = work[:, 0], work[:, 1]
        empty = np.maximum(i["groups"] - visits, 0) if i["mode"] != Mode.CLEAR else i["groups"]
        duration = np.maximum(words, visits + empty * np.exp(-visits / max(i["groups"], 1)))
        start = np.maximum(at + t.engine_first_word, self.arrays)
        end = np.array([self._stretched(s, d) for s, d in zip(start, duration, strict=True)])
        self.arrays = end
        self.done["engine"].append(float(end.max()) + t.engine_done)
        self.result.products.append((at, float(end.max()) + t.engine_done))
        self.result.words += float(words.sum())
        assert c.arrays == len(words)

    def _stretched(self, start: float, duration: float) -> float:
        """The end of an array's work that begins at `start`, drains in between included."""
        end = start + duration
        for first, last, share in self.drains:
            if last > start and first < end:
                end += share * (min(end, last) - max(first, start))
        return end

    def _vector(self, at: float, i: Instruction, chunks: int, beats: int) -> None:
        t = self.latencies
        drained = i["source"] in (Source.DRAIN, Source.DRAIN_PLANES)
        reduces = i["sums"] >= Sums.MAXIMUM
        pace = 2 if i["source"] == Source.DRAIN_PLANES else 1
        if reduces:
            pace = max(pace, self.config.vector_lanes // REDUCED_LANES)
        taken = chunks * pace
        start = max(at + 1, self.free["vector"])
        if i["scale"] == Scale.SCALAR:
            start = max(start, self.written[_half(i["parameters"])] - SCALAR_RELEASE)
        if reduces and len(self.reductions) >= REDUCTIONS:
            start = max(start, self.reductions[-REDUCTIONS])
        # the store buffer takes the first chunks as fast as they come
        waiting = beats * (1 - min(1, STORE_CHUNKS / chunks))
        end = start + max(taken, waiting)
        if drained:
            self._steal(start, taken, self._operations(i, chunks))
        self.result.vectors.append((max(at, self.free["vector"]), end))
        self.free["vector"] = end
        self.loads.chunks_pass(start, end, chunks)
        self.taken.append(end + 1)
        self.done["vector"].append(end + t.vector)
        if reduces:
            self._reduce(i, end)
        if i["store"] != Store.NONE:
            self.free["store"] = max(end + t.vector, self.free["store"] + beats) + t.store
            self.done["store"].append(self.free["store"] + t.memory)
            self.result.write_beats += beats

    def _reduce(self, i: Instruction, end: float) -> None:
        """The scalar of a VECTOR whose last chunk is taken at `end`: one after the other."""
        pace = max(self.config.vector_lanes // REDUCED_LANES, 1)
        begin = max(end + self.latencies.reduction + pace, self.free["scalar"])
        scalar, gain = isa.reduction_target(i["sum_address"])
        self.reductions = [*self.reductions[-REDUCTIONS:], begin]
        self.free["scalar"] = begin + self.latencies.scalar(Sums(i["sums"]), gain)
        self.written[_half(scalar)] = self.free["scalar"]

    def _operations(self, i: Instruction, chunks: int) -> int:
        """Slot operations of a drain: one per slot, per chunk and plane where planes alternate."""
        if i["source"] == Source.DRAIN_PLANES:
            return 2 * chunks
        first, last = i["drain"], i["drain"] + chunks - 1
        return last // self.config.slot_chunks - first // self.config.slot_chunks + 1

    def _steal(self, first: float, length: int, operations: int) -> None:
        """A drain of `length` cycles takes `operations` of them from arrays at work: these, and
        products under way, end later."""
        self.drains = [*self.drains[-7:], (first, first + length, operations / length)]
        late = np.minimum(operations, np.maximum(self.arrays - first, 0))
        self.arrays += late
        done = self.done["engine"]
        for n, end in enumerate(done):
            done[n] = end + min(operations, max(end - first, 0))

    def finish(self) -> Timeline:
        r = self.result
        r.cycles = round(self.now)
        r.product_cycles = round(covered(r.products))
        return r


def _half(scalar: int) -> int:
    """Half of the scalars: who reads one waits for its half."""
    return scalar // (SCALARS // 2)


def _units(i: Instruction) -> tuple[str, ...]:
    if i.opcode in (Opcode.LOAD, Opcode.EXPAND):
        return (channel(i),)
    if i.opcode is Opcode.PRODUCT:
        return ("engine",)
    if i.opcode is Opcode.VECTOR:
        return ("vector", "store") if i["store"] else ("vector",)
    return ()


def covered(intervals: Iterable[Interval]) -> float:
    """Cycles in which at least one of the intervals is."""
    total, reached = 0.0, 0.0
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total
