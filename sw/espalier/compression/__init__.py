"""Compression: column-balanced pruning and quantization of a PyTorch model.

`compress` is one call, at once or with training; `Compressor` serves a loop of one's own; `Recipe`
says what is wanted.
"""

from .compressor import Compressor
from .recipe import MatrixRecipe, Recipe
from .report import MatrixReport, Report
from .training import compress

__all__ = ["Compressor", "MatrixRecipe", "MatrixReport", "Recipe", "Report", "compress"]
