"""Transformers: from an unmodified PyTorch model to integer operations on tokens.

`import_tokens` reads the model, `quantize` makes it a `QuantTransformer`, whose `graph()` the
compiler takes.
"""

from .choices import Options
from .importer import import_tokens, is_transformer
from .module import QuantTransformer, quantize

__all__ = ["Options", "QuantTransformer", "import_tokens", "is_transformer", "quantize"]
