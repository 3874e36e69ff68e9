"""Learn how much of each matrix of a block can go by what the block's output loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import RecipeError
from ..batches import Arguments, as_batches, call, tensors
from ..moments import real_numbers
from ..parts import Method
from ..weights import Weight

if TYPE_CHECKING:
    from ..run import Run


@dataclass(frozen=True, kw_only=True)
class Besa(Method):
    """Blockwise sparsity allocation: densities by gradient descent on the block's output error.

    A matrix' density is a mix beta of candidates 1/c, 2/c .. 1; a weight stays with the share of
    the mix that is above its rank by score, hard in the forward (rank within the mean density),
    that share in the backward. For each block, one after the other on inputs that the pruned ones
    before it give,

        |f(x; W) - f(x; W·m)|^2 / |f(x; W)|^2 + pull·(density of the block - wish)^2

    falls by Adam over beta's logits; what the density still misses is spread over the block. Then
    the recipe's pattern chooses masks of these densities.

    Parameters
    ----------
    blocks: names of modules that are blocks, * and ? as wildcards; none: the members of
        nn.ModuleLists, as of all transformers, or the whole model. Matrices outside of blocks keep
        the recipe's density.
    steps, rate, candidates, pull: of the descent.

    Source: Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient
    Sparsity Allocation, arXiv 2402.16880 (layer-wise betas; the source has row-wise ones, too).
    """

    calibrated = True
    once = True
    score = "wanda"

    blocks: tuple[str, ...] = ()
    steps: int = 60
    rate: float = 0.05
    candidates: int = 20
    pull: float = 20.0

    def renew(self, run: Run) -> None:
        run.collect(run.weights)
        scores = [run.score(weight, weight.value) for weight in run.weights]
        run.allocate(scores)
        score_of = dict(zip(run.weights, scores, strict=True))
        inside: set[Weight] = set()
        for path, block, members in self._blocks(run):
            inside |= set(members)
            self._share_out(run, path, block, members, score_of)
            for weight in members:
                self._prune(weight, score_of[weight])
        for weight, score in score_of.items():
            if weight not in inside:
                self._prune(weight, score)
            weight.state.pop("moment", None)

    def _prune(self, weight: Weight, score: Tensor) -> None:
        self.apply(weight, weight.project(score, weight.goal), True)

    def _blocks(self, run: Run) -> Iterator[tuple[str, nn.Module, list[Weight]]]:
        """Path, module and matrices to be pruned of each block."""
        found = False
        taken: set[Weight] = set()
        for path in self._paths(run.model):
            start = f"{path}." if path else ""
            members = [
                weight
                for weight in run.weights
                if weight.name.startswith(start) and weight.density < 1 and weight not in taken
            ]
            found, taken = True, taken | set(members)
            if members:
                yield path, run.model.get_submodule(path), members
        if not found:
            known = ", ".join(path for path, _ in run.model.named_modules() if path)
            raise RecipeError(f"blocks {self.blocks} match no module; there are: {known}")

    def _paths(self, model: nn.Module) -> list[str]:
        named = list(model.named_modules())
        if self.blocks:
            return [p for p, _ in named if any(fnmatchcase(p, name) for name in self.blocks)]
        lists = [path for path, module in named if isinstance(module, nn.ModuleList)]
        inner = [
            path
            for path, _ in named
            if path.rpartition(".")[0] in lists and path.rpartition(".")[2].isdigit()
        ]
        outer = [p for p in inner if not any(p.startswith(f"{q}.") for q in inner if q != p)]
        return outer or [""]

    def _share_out(
        self,
        run: Run,
        path: str,
        block: nn.Module,
        members: Sequence[Weight],
        scores: dict[Weight, Tensor],
    ) -> None:
        """Set the goals of a block's matrices."""
        inputs = recorded(run.model, block, run.calibration)
        if not inputs:
            raise RecipeError(f"calibration batches must reach every block; none reaches {path!r}")
        ranks = [rank(scores[weight]) for weight in members]
        sizes = torch.tensor([float(weight.size) for weight in members])
        sizes = sizes / sizes.sum()
        wish = float(sum(w.goal * s for w, s in zip(members, sizes.tolist(), strict=True)))
        with real_numbers(run.model), torch.enable_grad():
            with torch.no_grad():
                targets = [tensors(call(block, each))[0].detach() for each in inputs]
            logits = [self._start(weight) for weight in members]
            optimizer = torch.optim.Adam(logits, lr=self.rate)
            for step in range(self.steps):
                at = step % len(inputs)
                densities = torch.stack([self._density(x) for x in logits])
                with soft_masks(members, [self._mask(*z) for z in zip(logits, ranks, strict=True)]):
                    output = tensors(call(block, inputs[at]))[0]
                scale = targets[at].square().mean().clamp(min=1e-12)
                error = (output - targets[at]).square().mean() / scale
                loss = error + self.pull * ((densities.cpu() @ sizes) - wish) ** 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            found = torch.stack([self._density(x) for x in logits]).detach().cpu()
        for weight, goal in zip(members, spread(found, sizes, wish).tolist(), strict=True):
            weight.goal = goal

    def _grid(self, like: Tensor) -> Tensor:
        return torch.arange(1, self.candidates + 1, device=like.device) / self.candidates

    def _start(self, weight: Weight) -> Tensor:
        """Logits [candidates] whose mix has the wished density, nearly."""
        distance = (self._grid(weight.value) - weight.goal) * self.candidates
        return (-0.5 * distance.square() / 4).requires_grad_()

    def _density(self, logits: Tensor) -> Tensor:
        return logits.softmax(0) @ self._grid(logits)

    def _mask(self, logits: Tensor, ranks: Tensor) -> Tensor:
        """1 for ranks within the density, with the gradient of the mix's share above a rank."""
        beta = logits.softmax(0)
        above = beta.flip(0).cumsum(0).flip(0)  # of candidate c: the mix that keeps its ranks
        place = (ranks * self.candidates).long().clamp(max=self.candidates - 1)
        share = above[place]
        hard = (ranks < self._density(logits)).to(share)
        return hard.detach() + share - share.detach()


def rank(score: Tensor) -> Tensor:
    """0 for the highest score .. almost 1 for the lowest, [M, N]."""
    order = score.flatten().argsort(descending=True, stable=True)
    result = torch.empty(len(order), device=score.device)
    result[order] = torch.arange(len(order), device=score.device) / len(order)
    return result.view(score.shape)


def spread(found: Tensor, sizes: Tensor, wish: float, least: float = 1e-3) -> Tensor:
    """Densities in [least, 1] of mean `wish` (weighted by sizes), those found scaled alike."""
    low, high = 0.0, 1.0 / least
    for _ in range(60):
        middle = (low + high) / 2
        if float((found * middle).clamp(least, 1.0) @ sizes) < wish:
            low = middle
        else:
            high = middle
    return (found * high).clamp(least, 1.0)


def recorded(model: nn.Module, block: nn.Module, batches: Any) -> list[Arguments]:
    """What calibration batches call a block with, in the model as it is now."""
    seen: list[Arguments] = []

    def remember(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen.append(Arguments(args, dict(kwargs)))

    with real_numbers(model):
        hook = block.register_forward_pre_hook(remember, with_kwargs=True)
        try:
            for batch in as_batches(batches):
                call(model, batch)
        finally:
            hook.remove()
    return seen


@contextmanager
def soft_masks(weights: Sequence[Weight], masks: Sequence[Tensor]) -> Iterator[None]:
    """Within the block matrices are multiplied by real masks [M, N], which get gradients."""
    before = [(w, w.holder._buffers[w.mask_name], w.frozen) for w in weights]
    try:
        for weight, mask in zip(weights, masks, strict=True):
            weight.holder._buffers[weight.mask_name] = weight.like_parameter(mask)
            weight.frozen = True
        yield
    finally:
        for weight, mask, frozen in before:
            weight.holder._buffers[weight.mask_name] = mask
            weight.frozen = frozen
