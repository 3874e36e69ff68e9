"""Espalier: compress a PyTorch GRU, compile it, run it on a small FPGA with the same integers
everywhere.

The names below are loaded on first use, so that `import espalier` needs NumPy alone; `compress` and
`compile` bring in torch (install the extra `espalier[torch]`).
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Program": "espalier.program",
    "EspalierError": "espalier.errors",
    "open": "espalier.runtime",
    "Recipe": "espalier.compression",
    "Compressor": "espalier.compression",
    "compress": "espalier.compression",
    "compile": "espalier.compiler.frontend",
    "estimate": "espalier.perf",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(
            f"module 'espalier' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
