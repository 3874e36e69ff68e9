"""Small matrices keep a larger share: about as many weights for every row and column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..parts import Allocation
from ..weights import Weight


@dataclass(frozen=True)
class ErdosRenyi(Allocation):
    """density proportional to (rows + columns) / (rows·columns), as many in all as the recipe's
    densities make.

    A matrix of few inputs, like the first of a network, would lose whole inputs at the density that
    wide ones bear. Gates, and query, key and value, count as matrices of their own. No density
    exceeds 1. What the recipe says of a matrix by its name, in `layers`, holds.

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse
    connectivity, arXiv 1707.04780, equation 1; as an allocation: Evci et al., Rigging the Lottery,
    arXiv 1911.11134, section 3.
    """

    def densities(self, weights: Sequence[Weight], scores: Sequence[Tensor]) -> list[float]:
        taking = [i for i, w in enumerate(weights) if w.density < 1 and not w.named]
        result = [weight.density for weight in weights]
        for i, density in zip(taking, _shared([weights[i] for i in taking]), strict=True):
            result[i] = density
        return result


def _shared(weights: list[Weight]) -> list[float]:
    """Densities by rows and columns, of as many weights in all as the wishes make."""
    budget = sum(weight.density * weight.size for weight in weights)
    open_ = list(weights)
    while open_:
        full = sum(weight.size for weight in weights if weight not in open_)
        share = (budget - full) / sum(map(_nodes, open_))
        small = [weight for weight in open_ if share * _nodes(weight) > weight.size]
        if not small:
            return [share * _nodes(w) / w.size if w in open_ else 1.0 for w in weights]
        open_ = [weight for weight in open_ if weight not in small]
    return [1.0] * len(weights)


def _nodes(weight: Weight) -> int:
    """Rows and columns of all blocks."""
    rows, columns = weight.shape
    return rows + weight.blocks * columns
