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
    exceeds 1; matrices whose density is 1 stay out of it.

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse
    connectivity, arXiv 1707.04780, equation 1; as an allocation: Evci et al., Rigging the Lottery,
    arXiv 1911.11134, section 3.
    """

    def densities(self, weights: Sequence[Weight], scores: Sequence[Tensor]) -> list[float]:
        taking = [i for i, weight in enumerate(weights) if weight.density < 1]
        budget = sum(weights[i].density * weights[i].size for i in taking)
        result, open_ = [1.0] * len(weights), set(taking)
        while open_:
            full = sum(weights[i].size for i in taking if i not in open_)
            share = (budget - full) / sum(_nodes(weights[i]) for i in open_)
            wanted = {i: share * _nodes(weights[i]) / weights[i].size for i in open_}
            if not any(density > 1 for density in wanted.values()):
                for i, density in wanted.items():
                    result[i] = density
                break
            open_ -= {i for i, density in wanted.items() if density > 1}
        return result


def _nodes(weight: Weight) -> int:
    """Rows and columns of all blocks."""
    rows, columns = weight.shape
    return rows + weight.blocks * columns
