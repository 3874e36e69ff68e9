"""Following the dense model while training: its logits, hidden states and their correlations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, RecipeError
from .batches import call, tensors


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What of the dense model the loss follows, and how strongly.

        loss = (1 - logits)·task + logits·KL + hidden·MSE + correlations·SP

    Parameters
    ----------
    logits: share 0..1 of T^2·KL(softmax(teacher / T) || softmax(student / T)); T is `temperature`.
        Source: Hinton, Vinyals and Dean, arXiv 1503.02531.
    hidden: weight of the squared distance of hidden states, relative to their mean square.
        Source: Romero et al., FitNets, arXiv 1412.6550 (of equal width: no regressor).
    correlations: weight of the squared distance of the samples' similarities G = QQ^T, rows of unit
        length, Q [B, all else] a layer's output. Source: Tung and Mori, Similarity-Preserving
        Knowledge Distillation, arXiv 1907.09682.
    layers: names of the modules whose (first) outputs are hidden states, * and ? as wildcards;
        none: those with compressed matrices that are called. Samples are along their first axis.
    """

    logits: float = 0.5
    hidden: float = 0.0
    correlations: float = 0.0
    temperature: float = 2.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for each in fields(self)[:4]:
            value = getattr(self, each.name)
            if not isinstance(value, int | float) or not value >= 0:
                raise RecipeError(f"{each.name} must be a number of at least 0, not {value!r}")
        if self.logits > 1:
            raise RecipeError(f"logits must be in 0..1, not {self.logits}")
        if self.temperature == 0:
            raise RecipeError("temperature must be above 0")

    @property
    def watches(self) -> bool:
        """Whether hidden states take part."""
        return self.hidden > 0 or self.correlations > 0


class Teacher:
    """The dense model, and hooks on both models for their hidden states."""

    def __init__(
        self, dense: nn.Module, student: nn.Module, wishes: Distillation, paths: Iterable[str]
    ) -> None:
        self.wishes = wishes
        self.model = copy.deepcopy(dense).eval().requires_grad_(False)
        self._states: dict[str, dict[str, Tensor]] = {"teacher": {}, "student": {}}
        self.hooks: list[Any] = []
        if wishes.watches:
            self.layers = self._layers(list(dict.fromkeys(paths)))
            self._watch("teacher", self.model)
            self._watch("student", student)

    def _layers(self, compressed: list[str]) -> list[str]:
        known = [path for path, _ in self.model.named_modules()]
        if not self.wishes.layers:
            return compressed
        chosen = [p for p in known if any(fnmatchcase(p, name) for name in self.wishes.layers)]
        if not chosen:
            raise RecipeError(
                f"distillation layers {self.wishes.layers} match no module; there are: "
                f"{', '.join(filter(None, known))}"
            )
        return chosen

    def _watch(self, who: str, model: nn.Module) -> None:
        for path in self.layers:
            hook = partial(self._remember, self._states[who], path)
            self.hooks.append(model.get_submodule(path).register_forward_hook(hook))

    @staticmethod
    def _remember(
        states: dict[str, Tensor], path: str, module: nn.Module, args: tuple, output: Any
    ) -> None:
        states[path] = tensors(output)[0]

    def loss(self, task_loss: Tensor, inputs: Any, outputs: Any) -> Tensor:
        """The mixed loss of the student's last call, on these inputs and outputs."""
        w = self.wishes
        with torch.no_grad():
            expected = call(self.model, inputs)
        total = (1 - w.logits) * task_loss
        if w.logits:
            total = total + w.logits * divergence(outputs, expected, w.temperature)
        if w.watches:
            total = total + self._hidden_loss()
        return total

    def _hidden_loss(self) -> Tensor:
        student, teacher = self._states["student"], self._states["teacher"]
        reached = [path for path in self.layers if path in student and path in teacher]
        missing = set(self.layers) - set(reached) if self.wishes.layers or not reached else set()
        if missing:
            raise InputError(f"distillation: no forward hook is reached in {', '.join(missing)}")
        pairs = [(student[path], teacher[path]) for path in reached]
        student.clear(), teacher.clear()
        return self.wishes.hidden * _mean(distance, pairs) + self.wishes.correlations * _mean(
            similarity_distance, pairs
        )


def _mean(measure: Any, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([measure(*pair) for pair in pairs]).mean()


def divergence(outputs: Any, expected: Any, temperature: float) -> Tensor:
    """Mean over rows and tensors of T²·KL(softmax(expected / T) || softmax(outputs / T))."""
    t, losses = temperature, []
    for pair in zip(tensors(outputs), tensors(expected), strict=True):
        mine, theirs = (x.reshape(-1, x.shape[-1]).div(t).log_softmax(dim=-1) for x in pair)
        each = functional.kl_div(mine, theirs, log_target=True, reduction="batchmean")
        losses.append(t * t * each)
    return torch.stack(losses).mean()


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """mean((s - t)^2) / mean(t^2)."""
    return (student - teacher).square().mean() / teacher.square().mean().clamp(min=1e-12)


def similarity_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """|G_s - G_t|^2 / B^2 of the samples' similarities."""

    def similarities(x: Tensor) -> Tensor:
        flat = x.flatten(1) if x.dim() > 1 else x[:, None]
        return functional.normalize(flat @ flat.T, dim=1)

    return (similarities(student) - similarities(teacher)).square().mean()
