"""What `espalier compress` says at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from .shared import console, size

if TYPE_CHECKING:
    from ..compression import Recipe, Report


def show(
    report: Report, measures: dict[str, tuple[float, float]], recipe: Recipe, written: Path
) -> None:
    """Matrices, sums, measures before and after, and what can be done with the file."""
    console.print(matrices(report))
    for name, (before, after) in measures.items():
        texts = [f"{x:.2%}" if name == "accuracy" else f"{x:.4f}" for x in (before, after)]
        console.print(f"{name} on the test: {texts[0]} before, {texts[1]} after", highlight=False)
    for matrix in report.padded:
        console.print(
            f"{matrix.name}: {matrix.pattern} does not fit {report.lanes} lanes: stored padded, "
            f"as {matrix.entries / matrix.size:.4f} of the matrix",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    use = "espalier compile FILE:FUNCTION --weights takes it"
    if recipe.arithmetic != "machine":
        use = f"arithmetic {recipe.arithmetic!r} is torch's: espalier compile would round it anew"
    console.print(f"{written}: {size(written.stat().st_size)}; {use}", highlight=False,
                  soft_wrap=True)  # fmt: skip


def matrices(report: Report) -> Table:
    table = Table("matrix", "shape", "bits", "requested", "achieved", "stored", "skipped",
                  title="Compressed matrices")  # fmt: skip
    for m in report.matrices:
        table.add_row(
            m.name, f"{m.shape[0]} x {m.shape[1]}", str(m.weight_bits),
            f"{m.requested_density:.4f}", f"{m.density:.4f}", size(m.weight_bytes),
            "" if m.skipped is None else f"{m.skipped:.1%}",
        )  # fmt: skip
    factor = report.float_bytes / report.weight_bytes
    table.add_section()
    table.add_row(
        "in all", "", "", f"{report.requested_density:.4f}", f"{report.density:.4f}",
        size(report.weight_bytes), f"{factor:.1f} x smaller",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    return table
