"""What compression asked for and what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..spec.memory import ENTRY
from .patterns import pattern_name
from .weights import Weight

FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class MatrixReport:
    """One weight matrix: `kept` of its `size` weights.

    entries: weights that the accelerator would store with padding: every column of a block of rows
        takes as many words as its fullest lane keeps; `kept` for a balanced pattern.
    skipped: share of columns that the machine skips on sample data (changes held back, zeros).
    """

    name: str
    shape: tuple[int, int]
    weight_bits: int
    requested_density: float
    kept: int
    pattern: str = "column-balanced"
    entries: int = 0
    skipped: float | None = None

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def density(self) -> float:
        """Achieved density."""
        return self.kept / self.size

    @property
    def padding(self) -> float:
        """Share of padding in what is stored and multiplied."""
        return 1 - self.kept / self.entries if self.entries else 0.0

    @property
    def weight_bytes(self) -> int:
        """What the kept weights take: on the accelerator an entry (digit, slot) for each digit; as
        floats 4 bytes, without their places."""
        if self.weight_bits == FLOAT_BITS:
            return 4 * self.kept
        return -(-self.kept * (self.weight_bits // 4) * ENTRY.width // 8)


@dataclass(frozen=True)
class Report:
    """All compressed matrices, for an accelerator of so many lanes in an array; printable."""

    matrices: tuple[MatrixReport, ...]
    lanes: int

    @property
    def size(self) -> int:
        return sum(matrix.size for matrix in self.matrices)

    @property
    def requested_density(self) -> float:
        """Over all matrices, by size."""
        return sum(m.requested_density * m.size for m in self.matrices) / self.size

    @property
    def density(self) -> float:
        """Achieved density over all matrices."""
        return sum(matrix.kept for matrix in self.matrices) / self.size

    @property
    def float_bytes(self) -> int:
        """The matrices before compression, in 32-bit floats."""
        return 4 * self.size

    @property
    def weight_bytes(self) -> int:
        """The matrices in the accelerator's format."""
        return sum(matrix.weight_bytes for matrix in self.matrices)

    @property
    def patterns(self) -> str:
        """The patterns in use."""
        return ", ".join(dict.fromkeys(matrix.pattern for matrix in self.matrices))

    @property
    def padded(self) -> tuple[MatrixReport, ...]:
        """Matrices that the accelerator stores with padding: their lanes keep different numbers."""
        return tuple(matrix for matrix in self.matrices if matrix.entries > matrix.kept)

    def with_skipped(self, shares: Mapping[str, float]) -> Report:
        """With the measured shares of skipped columns, by matrix."""
        matrices = (replace(m, skipped=shares.get(m.name, m.skipped)) for m in self.matrices)
        return replace(self, matrices=tuple(matrices))

    def __str__(self) -> str:
        width = max(len("in all"), *(len(m.name) for m in self.matrices))
        lines = [f"{'matrix':{width}}  {'shape':>11}  bits  requested  achieved   bytes  skipped"]
        for m in self.matrices:
            shape = f"{m.shape[0]} x {m.shape[1]}"
            lines.append(
                f"{m.name:{width}}  {shape:>11}  {m.weight_bits:4}  {m.requested_density:9.4f}"
                f"  {m.density:8.4f}  {m.weight_bytes:6}"
                + ("" if m.skipped is None else f"  {m.skipped:7.1%}")
            )
        lines.append(
            f"{'in all':{width}}  {'':11}  {'':4}  {self.requested_density:9.4f}"
            f"  {self.density:8.4f}  {self.weight_bytes:6}"
            f"  ({self.float_bytes / self.weight_bytes:.1f} times fewer than float)"
        )
        for m in self.padded:
            lines.append(
                f"{m.name}: the pattern ({m.pattern}) does not fit {self.lanes} lanes: stored "
                f"padded, as {m.entries / m.size:.4f} of the matrix"
            )
        return "\n".join(lines)


def make_report(weights: Sequence[Weight], lanes: int) -> Report:
    """The present state of matrices that an accelerator of so many lanes would run."""
    return Report(
        tuple(
            MatrixReport(
                name=weight.name,
                shape=weight.shape,
                weight_bits=weight.bits or FLOAT_BITS,
                requested_density=weight.goal,
                kept=int(weight.mask.sum()),
                pattern=pattern_name(weight.pattern),
                entries=sum(stored_entries(m, lanes) for m in weight.mask.chunk(weight.blocks)),
            )
            for weight in weights
        ),
        lanes,
    )


def stored_entries(mask: Tensor, lanes: int) -> int:
    """Entries of a mask [M, N] when each column takes the words of its fullest lane.

    A last slot that not all lanes have is not counted as padding: no pattern could fill it.
    """
    rows, columns = mask.shape
    slots = -(-rows // lanes)
    padded = torch.zeros(slots * lanes, columns, dtype=torch.bool, device=mask.device)
    padded[:rows] = mask
    words = padded.view(slots, lanes, columns).sum(0).amax(0)  # [N]
    exists = torch.zeros(slots * lanes, dtype=torch.int64, device=mask.device)
    exists[:rows] = 1
    rows_of_lane = exists.view(slots, lanes).sum(0)  # [lanes]
    return int(torch.minimum(words[None], rows_of_lane[:, None]).sum())
