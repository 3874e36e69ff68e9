"""The weakest waits with which instructions side by side mean what they mean one after the other.

Every instruction reads and writes ranges of resources; one that touches what an earlier one of
another unit writes, or writes what that one reads, waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from espalier.spec import isa
from espalier.spec.config import Config
from espalier.spec.isa import Mode, Scale, Source, Sums, reduction_target

Range = tuple[str, int, int]
"""(resource, first, end) that an instruction reads or writes."""
OUTPUTS: Range = ("output", 0, 1)
"""All that is stored."""
REDUCTIONS = (Sums.MAXIMUM, Sums.MASS, Sums.MOMENTS)
"""What a VECTOR makes of sums for a scalar."""


@dataclass(frozen=True)
class _Issued:
    reads: list[Range]
    writes: list[Range]


def _overlap(left: list[Range], right: list[Range]) -> bool:
    return any(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a in left for b in right)


class Waits:
    """The weakest waits that keep the order of conflicting instructions."""

    def __init__(self) -> None:
        self._issued: dict[str, list[_Issued]] = {unit: [] for unit in isa.UNITS}

    def before(self, reads: list[Range], writes: list[Range]) -> dict[str, int]:
        """wait_<unit> of an instruction that touches these ranges."""
        waits = {}
        for unit, issued in self._issued.items():
            depth = next(
                (
                    n
                    for n, other in enumerate(reversed(issued))
                    if _overlap(other.writes, reads + writes) or _overlap(other.reads, writes)
                ),
                None,
            )
            if depth is not None:
                waits[f"wait_{unit}"] = min(depth, isa.NO_WAIT - 1)
        return waits

    def issue(self, unit: str, reads: list[Range], writes: list[Range]) -> None:
        self._issued[unit].append(_Issued(reads, writes))


def product_ranges(config: Config, f: Mapping[str, int]) -> tuple[list[Range], list[Range]]:
    """What a PRODUCT of these fields reads and writes.

    It may read any weights. Sums commute: products need not wait for each other; to the slots they
    are readers.
    """
    reads: list[Range] = [
        (name.upper(), f[name], f[name] + f["groups"]) for name in ("activations", "descriptors")
    ]
    reads += [("WEIGHTS", 0, config.weight_depth), ("slots", 0, config.tile_chunks)]
    return reads, [] if f["mode"] == Mode.PLAIN else [("last", f["last"], f["last"] + f["groups"])]


def vector_ranges(config: Config, f: Mapping[str, int]) -> tuple[list[Range], list[Range]]:
    """What a VECTOR of these fields reads and writes, what it stores aside; a drain empties slots,
    so it writes them."""
    n = f["count"]
    scalar = f["scale"] == Scale.SCALAR
    rows, size = ("SCALARS", 1) if scalar else ("PARAMETERS", n)
    reads: list[Range] = [
        (rows, f["parameters"], f["parameters"] + size),
        ("TABLES", 0, 256),
    ]
    reads += [("VECTOR", f[name], f[name] + n) for name in ("operand0", "operand1", "operand2")]
    writes: list[Range] = []
    planes = {Source.DRAIN: 1, Source.DRAIN_PLANES: 2}.get(Source(f["source"]), 0)
    for plane in range(planes):
        first = f["drain"] + plane * f["plane_stride"]
        writes.append(("slots", first, first + n))
    if f["sums"] in REDUCTIONS:
        target, _ = reduction_target(f["sum_address"])
        writes.append(("SCALARS", target, target + 1))
    elif f["sums"]:
        writes.append(("SUMS", f["sum_address"], f["sum_address"] + n))
    if f["write_vector"]:
        writes.append(("VECTOR", f["vector_address"], f["vector_address"] + n))
    if f["write_columns"]:
        words = -(-n * config.chunk_groups // config.arrays)
        writes.append(("ACTIVATIONS", f["column_address"], f["column_address"] + words))
    return reads, writes
