"""Waits by construction: which instructions must have completed before another one may issue.

The sequencer issues in order; each unit completes its instructions in order; units run
concurrently. Every instruction declares the resource ranges that it reads and writes, and this
module derives the waits:

- another unit's outstanding instruction that writes what this one reads (a VECTOR's operand behind
  a LOAD, a drain behind its products, a product behind the VECTOR or LOAD that writes its columns,
  a LOAD behind a store of the same scratch);
- another unit's outstanding instruction that reads or writes what this one writes (a product into
  slots that are still being drained, a LOAD or VECTOR into columns, weights or descriptors that a
  product still reads);
- the vector unit's own outstanding instruction that writes what this one reads in vector or sum
  memory: its chunks pass a pipeline, all else within one unit is in order (slots and last-sent
  values forward inside the engine, and the vector unit waits for scalars by itself).

A VECTOR cannot wait for the weights' unit, and need not: what an EXPAND reads is written anew only
after products that waited for it.

A wait of n lets the n instructions of a unit that were issued last be outstanding. Loop bodies are
followed until the outstanding instructions at the loop head repeat, and loops that count by a
register are also followed around, because the count may be 0; an instruction gets the strictest
wait of all paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..spec.isa import UNITS, Opcode, waits_for

MOST_WAIT = 2
"""The weakest wait that is one. The order of outstanding instructions before the last two does not
matter."""

SCALARS = "scalars"
"""The space of reductions' results: the vector unit waits for them by itself."""

Range = tuple[str, int, int]
"""(space, first, end): addresses of one memory, or a whole DDR buffer."""
Outstanding = tuple[tuple[int, ...], frozenset[int]]
"""Addresses of a unit's instructions that may be outstanding: the last two, latest first, and all
before them."""
State = tuple[Outstanding, ...]
"""By unit, in the order of `UNITS`."""
NOTHING: Outstanding = ((), frozenset())


@dataclass(frozen=True)
class Access:
    """What an instruction does on one unit."""

    unit: str
    reads: tuple[Range, ...] = ()
    writes: tuple[Range, ...] = ()


def overlap(a: tuple[Range, ...], b: tuple[Range, ...]) -> bool:
    return any(x[0] == y[0] and x[1] < y[2] and y[1] < x[2] for x in a for y in b)


def must_wait(new: Access, old: Access) -> bool:
    """Whether `new` may issue only after `old` completed."""
    if new.unit == old.unit:
        written = tuple(one for one in old.writes if one[0] != SCALARS)
        return new.unit == "vector" and overlap(new.reads, written)
    touched = (*old.reads, *old.writes)
    return overlap(new.reads, old.writes) or overlap(new.writes, touched)


@dataclass
class Step:
    """One instruction to the analysis; `end` is a LOOP's END and `skippable` says that its count
    may be 0."""

    opcode: Opcode
    accesses: tuple[Access, ...] = ()
    end: int = 0
    skippable: bool = False


class Waits:
    """The waits of a program: `waits[address][unit]`, for every entry's paths."""

    def __init__(self, steps: Sequence[Step], entries: Sequence[int]):
        self._steps = steps
        self.waits: list[dict[str, int]] = [{} for _ in steps]
        idle: State = (NOTHING,) * len(UNITS)
        for entry in entries:
            self._follow(entry, len(steps), {idle})

    def _follow(self, address: int, end: int, states: set[State]) -> set[State]:
        """Walk from `address` to `end` or HALT; returns the possible states there."""
        while address < end:
            step = self._steps[address]
            if step.opcode is Opcode.HALT:
                self.waits[address] = dict.fromkeys(UNITS, 0)
                return set()
            if step.opcode is Opcode.LOOP:
                states = self._loop(address, step, states)
                address = step.end
            elif step.accesses:
                states = self._issue(address, step, states)
            address += 1
        return states

    def _loop(self, address: int, step: Step, states: set[State]) -> set[State]:
        seen, new = set(states), states
        leaving: set[State] = set(states) if step.skippable else set()
        while new:
            after = self._follow(address + 1, step.end, new)
            leaving |= after
            new = after - seen
            seen |= new
        return leaving

    def _issue(self, address: int, step: Step, states: set[State]) -> set[State]:
        waits = self.waits[address]
        for state in states:
            for unit, (recent, older) in zip(UNITS, state, strict=True):
                found = [n for n, old in enumerate(recent) if self._conflict(step, unit, old)]
                if not found and any(self._conflict(step, unit, old) for old in older):
                    found = [MOST_WAIT]
                if found:
                    assert unit in waits_for(step.opcode), "no VECTOR can wait for weights"
                    waits[unit] = min(waits.get(unit, MOST_WAIT), found[0])
        issued = {access.unit for access in step.accesses}
        return {self._advance(state, waits, issued, address) for state in states}

    def _conflict(self, step: Step, unit: str, old: int) -> bool:
        before = next(a for a in self._steps[old].accesses if a.unit == unit)
        return any(must_wait(access, before) for access in step.accesses)

    @staticmethod
    def _advance(state: State, waits: dict[str, int], issued: set[str], address: int) -> State:
        result = []
        for unit, (recent, older) in zip(UNITS, state, strict=True):
            if unit in waits:
                recent, older = recent[: waits[unit]], frozenset()
            if unit in issued:
                recent = (address, *recent)
                recent, older = recent[:MOST_WAIT], older | set(recent[MOST_WAIT:])
            result.append((recent, older))
        return tuple(result)
