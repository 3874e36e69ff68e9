"""Operators that stand for quantized modules in an exported graph: one node each, of dynamic time.

`name` is the module's path inside the exported root: `root.get_submodule(name).integer()` gives its
integers. A graph is for the compiler to read; it cannot be executed, because an operator does not
hold its module's weights.
"""

import torch
from torch import Tensor

from ..errors import EspalierError


def _refuse(name: str) -> EspalierError:
    return EspalierError(
        f"an exported graph cannot be executed (module {name!r}): it is for the compiler; "
        "call the model itself"
    )


@torch.library.custom_op("espalier::linear", mutates_args=())
def linear(x: Tensor, name: str, out_features: int) -> Tensor:
    """[..., N] to [..., out_features]."""
    raise _refuse(name)


@linear.register_fake
def _(x: Tensor, name: str, out_features: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


@torch.library.custom_op("espalier::gru", mutates_args=())
def gru(
    x: Tensor,
    h0: Tensor | None,
    name: str,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """nn.GRU's shapes, with and without a batch."""
    raise _refuse(name)


@gru.register_fake
def _(
    x: Tensor,
    h0: Tensor | None,
    name: str,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    directions = 2 if bidirectional else 1
    batch = () if x.dim() == 2 else (x.shape[0 if batch_first else 1],)
    y = x.new_empty((*x.shape[:-1], directions * hidden_size))
    return y, x.new_empty((num_layers * directions, *batch, hidden_size))
