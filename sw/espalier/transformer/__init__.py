"""Transformers: from an unmodified PyTorch model to integer operations on tokens.

`import_tokens` reads the model, `quantize` makes it a `QuantTransformer`, whose `graph()` the
compiler takes.
"""

from .importer import import_tokens, is_transformer
from .module import QuantTransformer, quantize
from .plan import Options

__all__ = ["Options", "QuantTransformer", "import_tokens", "is_transformer", "quantize"]
