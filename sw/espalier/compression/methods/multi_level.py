"""Heads of attention, units of feed-forward layers, and a pattern in what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...errors import RecipeError
from ..parts import Method, cubic
from ..patterns.fine_grained import top
from ..weights import Weight

if TYPE_CHECKING:
    from ..run import Run


class Coupling(NamedTuple):
    """Matrices of a block whose rows make units, and the one whose columns take them.

    Names are those inside of a block, like "attention.self.query.weight".
    """

    makers: tuple[str, ...]
    taker: str


ATTENTION = (
    Coupling(tuple(f"attention.self.{name}.weight" for name in ("query", "key", "value")),
             "attention.output.dense.weight"),
    Coupling(("attn.c_attn.weight",), "attn.c_proj.weight"),
    Coupling(("self_attn.in_proj_weight",), "self_attn.out_proj.weight"),
)  # fmt: skip
FEED_FORWARD = (
    Coupling(("intermediate.dense.weight",), "output.dense.weight"),
    Coupling(("mlp.c_fc.weight",), "mlp.c_proj.weight"),
    Coupling(("linear1.weight",), "linear2.weight"),
)
"""BERT, GPT-2, nn.TransformerEncoderLayer."""


@dataclass(frozen=True, kw_only=True)
class MultiLevel(Method):
    """Whole heads and feed-forward units go first; the recipe's pattern thins the rest.

    Shares of heads and units fall like densities do, along a cubic curve, and a matrix' density
    counts what they took: with `rows` 1/2 and density 1/4, half of the kept units' weights stay.
    Heads and units are those with the largest sum of scores over all matrices that they touch: the
    makers' rows and the taker's columns, which are dropped together. Pattern "blocks" makes the
    third level the source's.

    Parameters
    ----------
    heads, rows: shares of a block's heads and of its feed-forward units that stay.
    head_size: elements of a head.

    Source: Yao et al., MLPruning: A Multilevel Structured Pruning Framework for Transformer-based
    Models, arXiv 2105.14636. There trained thresholds choose the shares; here they are parameters,
    and scores are the recipe's ("movement" is the source's).
    """

    heads: float = 0.75
    rows: float = 0.75
    head_size: int = 64

    def __post_init__(self) -> None:
        for name, share in (("heads", self.heads), ("rows", self.rows)):
            if not 0 < share <= 1:
                raise RecipeError(f"{name} must be above 0 and at most 1, not {share}")
        if self.head_size < 1:
            raise RecipeError(f"head_size must be at least 1, not {self.head_size}")

    def density(self, goal: float, progress: float) -> float:
        return cubic(goal, progress)

    def renew(self, run: Run) -> None:
        scores = [run.score(weight, self.scored(weight, run.fixed)) for weight in run.weights]
        run.allocate(scores)
        regions = self.regions(run.weights, scores, run.progress)
        for weight, score in zip(run.weights, scores, strict=True):
            region = regions.get(weight)
            density = self.density(weight.goal, run.progress)
            if region is None:
                self.apply(weight, weight.project(score, density), run.fixed)
                continue
            inside = torch.where(region, score, score.min().clamp(max=0) - 1)
            self.apply(weight, weight.project(inside, density) & region, run.fixed)

    def regions(
        self, weights: Sequence[Weight], scores: Sequence[Tensor], progress: float
    ) -> dict[Weight, Tensor]:
        """What kept heads and units leave of each matrix that belongs to some (bool [M, N])."""
        score_of, result = dict(zip(weights, scores, strict=True)), {}
        levels = (
            (ATTENTION, self.heads, self.head_size),
            (FEED_FORWARD, self.rows, 1),
        )
        for couplings, share, size in levels:
            for makers, taker in coupled(weights, couplings):
                if all(weight.density >= 1 for weight in (*makers, taker)):
                    continue
                kept = _kept(makers, taker, score_of, cubic(share, progress), size)
                for maker in makers:
                    rows = kept.repeat(maker.shape[0] // len(kept))[:, None]
                    result[maker] = rows.expand(maker.shape)
                result[taker] = kept[None].expand(taker.shape)
        if not result:
            raise RecipeError(
                "multi-level pruning must know the model's blocks; none of its matrices is called "
                "like those of BERT, GPT-2 or nn.TransformerEncoderLayer"
            )
        return result


def coupled(
    weights: Sequence[Weight], couplings: Sequence[Coupling]
) -> Iterator[tuple[list[Weight], Weight]]:
    """The matrices of every block that has all names of a coupling."""
    by_name = {weight.name: weight for weight in weights}
    for coupling in couplings:
        for name, taker in by_name.items():
            if not (name == coupling.taker or fnmatchcase(name, f"*.{coupling.taker}")):
                continue
            block = name.removesuffix(coupling.taker)
            makers = [by_name.get(block + maker) for maker in coupling.makers]
            if all(maker is not None for maker in makers):
                yield [maker for maker in makers if maker is not None], taker


def _kept(
    makers: Sequence[Weight],
    taker: Weight,
    scores: dict[Weight, Tensor],
    share: float,
    size: int,
) -> Tensor:
    """Which units [taker's columns] stay, `size` neighbours together."""
    width = taker.shape[1]
    total = scores[taker].sum(0)  # [units]
    if width % size:
        raise RecipeError(
            f"{taker.name}: heads of {size} must divide {width}; give MultiLevel(head_size=...)"
        )
    for maker in makers:
        total = total + scores[maker].sum(1).view(-1, width).sum(0)
    groups = total.view(-1, size).sum(1)
    return top(groups, share * len(groups)).repeat_interleave(size)
