"""Pull residual branches towards nothing, and drop those that do least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import InputError, RecipeError
from .. import parallel
from ..batches import tensors
from ..parts import Method, cubic
from ..patterns.fine_grained import top
from ..weights import Weight

if TYPE_CHECKING:
    from ..run import Run


@dataclass(frozen=True, kw_only=True)
class IdentityPrior(Method):
    """Spectral-normalized identity prior: of residual modules x + f(x), the small f go.

    The loss gets strength times the mean, over branches, of the function norm of f: the root mean
    square of its output. At each update the spectral norm of the branches' matrices is brought down
    to `bound`, so that a branch cannot hide behind the scale of another, and the branches of the
    smallest norms, followed over steps, lose all their weights: what is left of f is what it gives
    for weights of 0 (its last bias). A density is that of the branches in all; matrices elsewhere
    have the recipe's pattern, and usually density 1.

    Parameters
    ----------
    branches: names of the modules f, * and ? as wildcards.
    strength: of the prior in the loss.
    bound: largest spectral norm; a convolution's filters are the rows of its matrix.
    memory: share of a branch's followed norm that stays at a step.

    Source: Lin et al., Pruning Redundant Mappings in Transformer Models via Spectral-Normalized
    Identity Prior, arXiv 2010.01791 (thresholds there; here the density says how many stay).
    """

    trained = True

    branches: tuple[str, ...] = ("*.branch",)
    strength: float = 0.01
    bound: float = 1.0
    memory: float = 0.9

    def prepare(self, run: Run) -> None:
        named = run.model.named_modules()
        paths = [p for p, _ in named if p and any(fnmatchcase(p, name) for name in self.branches)]
        if not paths:
            known = ", ".join(path for path, _ in run.model.named_modules() if path)
            raise RecipeError(f"branches {self.branches} match no module; there are: {known}")
        run.notes["branches"] = {path: _inside(run.weights, path) for path in paths}
        empty = [path for path, inside in run.notes["branches"].items() if not inside]
        if empty:
            raise RecipeError(f"a branch must have weight matrices; {', '.join(empty)} has none")
        run.notes["norms"] = {}
        for path in paths:
            hook = partial(_remember, run.notes["norms"], path)
            run.hooks.append(run.model.get_submodule(path).register_forward_hook(hook))

    def penalty(self, run: Run) -> Tensor | None:
        norms, branches = run.notes["norms"], run.notes["branches"]
        if missing := set(branches) - set(norms):
            raise InputError(f"the loss must call every branch; not {', '.join(sorted(missing))}")
        for path, inside in branches.items():
            state, now = inside[0].state, norms[path].detach()
            state["norm"] = torch.lerp(now, state.get("norm", now), self.memory)
        return self.strength * torch.stack([norms[path] for path in branches]).mean()

    def density(self, goal: float, progress: float) -> float:
        return cubic(goal, progress)

    def renew(self, run: Run) -> None:
        branches: list[list[Weight]] = list(run.notes["branches"].values())
        members = {weight for inside in branches for weight in inside}
        scores = [run.score(weight, weight.value) for weight in run.weights]
        run.allocate(scores)
        for weight, score in zip(run.weights, scores, strict=True):
            if weight not in members:
                mask = weight.project(score, self.density(weight.goal, run.progress))
                self.apply(weight, mask, run.fixed)
        stays = self._stays(run, branches)
        for inside, stay in zip(branches, stays.tolist(), strict=True):
            for weight in inside:
                self.apply(weight, torch.full_like(weight.mask, stay), run.fixed)
                weight.set_value(bounded(weight.value, self.bound))

    def _stays(self, run: Run, branches: Sequence[Sequence[Weight]]) -> Tensor:
        """Which branches stay, bool."""
        known = [inside[0].state.get("norm") for inside in branches]
        norms = [x for x in known if x is not None]
        if len(norms) < len(known):
            return torch.ones(len(branches), dtype=torch.bool)  # nothing was seen yet
        size = sum(weight.size for inside in branches for weight in inside)
        goal = sum(weight.goal * weight.size for inside in branches for weight in inside) / size
        share = self.density(goal, run.progress)
        return top(parallel.of_first(torch.stack(norms)), share * len(branches)).cpu()


def _inside(weights: Sequence[Weight], path: str) -> list[Weight]:
    return [weight for weight in weights if weight.name.startswith(f"{path}.")]


def _remember(
    norms: dict[str, Tensor], path: str, module: nn.Module, args: tuple, output: Any
) -> None:
    """Forward hook: the root mean square of a branch's output."""
    if module.training:
        norms[path] = tensors(output)[0].square().mean().add(1e-12).sqrt()


def bounded(value: Tensor, bound: float) -> Tensor:
    """A matrix [M, N], scaled down to a spectral norm of `bound` where it is above."""
    norm = torch.linalg.matrix_norm(value, 2)
    return value * (bound / norm).clamp(max=1.0) if norm > 0 else value
