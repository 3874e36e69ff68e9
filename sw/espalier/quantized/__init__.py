"""PyTorch modules whose values are the accelerator's integers, and that can be trained.

`QuantLinear` and `QuantGRU` replace nn.Linear and nn.GRU, `TableFunctions` sigmoid and tanh around
them. Under torch.export each module is one node, `espalier.linear` or `espalier.gru`, whose
`name` is the module's path inside the root: `root.get_submodule(name).integer()` gives its
parameters. Sigmoid and tanh around them stay aten nodes.
"""

from .activations import TableFunctions
from .base import QuantModule
from .gru import QuantGRU
from .linear import QuantLinear

__all__ = ["QuantGRU", "QuantLinear", "QuantModule", "TableFunctions"]
