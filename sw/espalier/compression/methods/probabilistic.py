"""Sample the mask anew in every step, and learn with which odds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import parallel
from ..parts import Method
from ..patterns import ColumnBalanced, KOfN, UniformK
from ..patterns.column_balanced import by_lane
from ..weights import Weight

if TYPE_CHECKING:
    from ..run import Run

MEMORY = 0.99
"""Share of the mean square of a matrix' gradients that stays at a step."""


@dataclass(frozen=True, kw_only=True)
class Probabilistic(Method):
    """Dynamic probabilistic pruning: k out of n by learned log odds plus Gumbel noise.

    The mask of a step is the pattern's for scores phi + noise: where a pattern keeps k of n
    candidates, that is k draws without replacement by the odds exp(phi). Odds learn through the
    relaxed mask k·softmax(phi + noise) over the candidates (straight-through): with u = dL/dw'·w

        dL/dphi_j = k·p_j·(u_j - sum_i p_i·u_i).

    Candidates are the rows of a lane in a column (the hardware's patterns), n neighbours (k:n), or
    a row's weights. Weights outside of a sample get no gradient. When the pruning time is over the
    mask is that of the odds alone.

    Parameters
    ----------
    rate: step of phi, for a gradient of the root mean square that the matrix' gradients have had
        (RMSProp; the source has Adam).
    start: phi = start·ln|w| at first; 0 forgets the magnitudes, as the source does, which trains
        from scratch.
    noise: scale of the Gumbel noise at first; it falls to 0 with the pruning time.

    Source: Gonzalez-Carabarin et al., Dynamic Probabilistic Pruning, arXiv 2105.12686; sampling:
    Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them, arXiv 1903.06059.
    """

    trained = True
    updates = 1_000_000  # every step

    rate: float = 0.05
    start: float = 1.0
    noise: float = 1.0

    def renew(self, run: Run) -> None:
        odds = [self.odds(weight) for weight in run.weights]
        run.allocate(odds)
        for weight, phi in zip(run.weights, odds, strict=True):
            scale = 0.0 if run.fixed else self.noise * (1 - run.progress)
            sample = phi + scale * gumbel(phi)
            weight.state["sample"] = sample
            self.apply(weight, weight.project(sample, weight.goal), run.fixed)

    def odds(self, weight: Weight) -> Tensor:
        """phi [M, N]."""
        if "odds" not in weight.state:
            value = weight.value.abs()
            weight.state["odds"] = self.start * value.clamp(min=1e-12).log()
        return weight.state["odds"]

    def gradient(self, weight: Weight, gradient: Tensor) -> Tensor:
        if weight.frozen or weight.goal >= 1:
            return gradient
        u, mask = gradient * weight.value, weight.mask
        parts = zip(*(x.chunk(weight.blocks) for x in (weight.state["sample"], u, mask)),
                    strict=True)  # fmt: skip
        slope = torch.cat([relaxed_slope(weight, *part) for part in parts])
        now = slope.square().mean()
        square = torch.lerp(now, weight.state.get("square", now), MEMORY)
        weight.state["square"] = square
        step = self.rate * slope / square.sqrt().clamp(min=1e-30)
        weight.state["odds"] = weight.state["odds"] - step
        return gradient * mask


def gumbel(like: Tensor) -> Tensor:
    """Gumbel(0, 1) noise from torch's default generator, the same in all processes."""
    uniform = torch.rand(like.shape).clamp(min=1e-20).to(like)
    return parallel.of_first(-(-uniform.log()).log())


def relaxed_slope(weight: Weight, sample: Tensor, u: Tensor, mask: Tensor) -> Tensor:
    """dL/dphi [M, N] of one block of rows, through k·softmax over each group of candidates."""
    pattern, (height, width) = weight.pattern, sample.shape
    if isinstance(pattern, ColumnBalanced | UniformK):
        scores, losses, kept = (
            by_lane(x, pattern.lanes, fill)
            for x, fill in ((sample, -torch.inf), (u, 0.0), (mask.to(u), 0.0))
        )
        slope = _slope(scores, losses, kept, 0)  # [slots, lanes, N]
        return slope.nan_to_num().flatten(0, 1)[:height]
    n = pattern.n if isinstance(pattern, KOfN) and width % pattern.n == 0 else width
    groups = (x.view(height, -1, n) for x in (sample, u, mask.to(u)))
    return _slope(*groups, 2).view(height, width)


def _slope(sample: Tensor, u: Tensor, mask: Tensor, axis: int) -> Tensor:
    p = sample.softmax(axis)
    mean = (p * u).sum(axis, keepdim=True)
    return mask.sum(axis, keepdim=True) * p * (u - mean)
