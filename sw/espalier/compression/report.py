"""What compression asked for and what it reached."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..quantized import QuantModule
from ..spec.memory import ENTRY
from .recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class MatrixReport:
    """One weight matrix: `kept` of its `size` weights."""

    name: str
    shape: tuple[int, int]
    weight_bits: int
    requested_density: float
    kept: int

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def density(self) -> float:
        """Achieved density."""
        return self.kept / self.size

    @property
    def weight_bytes(self) -> int:
        """What the kept weights take on the accelerator: an entry (digit, slot) for each digit."""
        return -(-self.kept * (self.weight_bits // 4) * ENTRY.width // 8)


@dataclass(frozen=True)
class Report:
    """All compressed matrices; printable."""

    matrices: tuple[MatrixReport, ...]

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

    def __str__(self) -> str:
        width = max(len("in all"), *(len(m.name) for m in self.matrices))
        lines = [f"{'matrix':{width}}  {'shape':>11}  bits  requested  achieved   bytes"]
        for m in self.matrices:
            shape = f"{m.shape[0]} x {m.shape[1]}"
            lines.append(
                f"{m.name:{width}}  {shape:>11}  {m.weight_bits:4}  {m.requested_density:9.4f}"
                f"  {m.density:8.4f}  {m.weight_bytes:6}"
            )
        lines.append(
            f"{'in all':{width}}  {'':11}  {'':4}  {self.requested_density:9.4f}"
            f"  {self.density:8.4f}  {self.weight_bytes:6}"
            f"  ({self.float_bytes / self.weight_bytes:.1f} times fewer than float)"
        )
        return "\n".join(lines)


def make_report(model: nn.Module, recipe: Recipe) -> Report:
    """The present state of a converted model."""
    matrices = []
    for module in model.modules():
        for name in module.matrices() if isinstance(module, QuantModule) else ():
            mask = module.mask(name)
            matrices.append(
                MatrixReport(
                    name=f"{module.path}.{name}".lstrip("."),
                    shape=tuple(mask.shape),
                    weight_bits=module.bit_widths[name],
                    requested_density=recipe.matrix(module.path, name).density,
                    kept=int(mask.sum()),
                )
            )
    return Report(tuple(matrices))
