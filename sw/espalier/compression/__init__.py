"""Compression: pruning to a pattern and quantization of a PyTorch model.

`compress` is one call, at once or with training; `Compressor` serves a loop of one's own; `Recipe`
says what is wanted: score, pattern, allocation and method, by name or as objects of the packages
`scores`, `patterns`, `allocations`, `methods` (see `parts`).
"""

from .bits import bit_sensitivity, choose_bits, set_bits
from .compressor import Compressor
from .distillation import Distillation
from .files import load_compressed, save_compressed
from .parts import Allocation, Method, Pattern, Score
from .recipe import MatrixRecipe, Recipe
from .report import MatrixReport, Report
from .smoothing import fold_outliers
from .temporal import skipped_columns
from .training import compress
from .weights import Weight

__all__ = [
    "Allocation", "Compressor", "Distillation", "MatrixRecipe", "MatrixReport", "Method", "Pattern",
    "Recipe", "Report", "Score", "Weight", "bit_sensitivity", "choose_bits", "compress",
    "fold_outliers", "load_compressed", "save_compressed", "set_bits", "skipped_columns",
]  # fmt: skip
