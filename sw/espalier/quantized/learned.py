"""Scales that training learns: steps of rounding, trained by their logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EspalierError

SCALE_MIN = 2.0**-40
"""Scale of a row without weights; its multiplier is 0."""


class _LearnedRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log: Tensor, scale: Tensor, level: int) -> Tensor:
        steps = x / scale
        integer = torch.floor(steps + 0.5).clamp(-level, level)
        ctx.save_for_backward(steps, integer, scale)
        ctx.log_shape, ctx.level = log.shape, level
        return integer

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        steps, integer, scale = ctx.saved_tensors
        inside = steps.abs() < ctx.level
        log = (gradient * (integer - steps * inside)).reshape(*ctx.log_shape, -1).sum(-1)
        gain = (gradient.numel() / log.numel() * ctx.level) ** -0.5
        return gradient * inside / scale, log * gain, None, None


def learned_round(x: Tensor, log: Tensor, scale: Tensor, level: int) -> Tensor:
    """floor(x / scale + 0.5) within ±level, as floats; x and log = ln(scale) receive gradients.

    log is a scalar, or has one element for each row of x; `scale` is its value (of any grid),
    shaped to divide x. The result must be multiplied by the scale once, where no gradient follows
    the scale: so with G the gradient of the result, the whole one of ln(scale) is

        sum over the scale's elements of G·(result - x / scale)   within the range
                                         G·result                 beyond it

    times 1 / sqrt(elements·level), and that of x is G / scale within the range and 0 beyond.

    Source: Esser et al., Learned Step Size Quantization, arXiv 1902.08153, equation 3 and section
    2.2, by ln(scale) instead of the scale, because Adam's steps then are shares of the scale (Jain
    et al., Trained Quantization Thresholds, arXiv 1903.08066, section 3).
    """
    return _LearnedRound.apply(x, log, scale.to(x.dtype), level)


class LearnedScales(nn.Module):
    """A module with scale buffers that training can take over.

    A learned buffer <name> has a parameter log_<name> beside it. Until `learning` is set it follows
    the buffer, which is fitted to the weights; from then on the buffer follows the parameter, which
    `learned_round` trains. `keep_scales` ends that.

    Members
    -------
    search: how row scales are fitted to weights, see `row_scales`.
    moments: for the search "output", E[x x^T] of a matrix' inputs, by parameter name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.learning = False
        self.kept_scales: set[str] = set()
        self.search = "error"
        self.moments: dict[str, Tensor] = {}

    def learn_scales(self, *names: str) -> None:
        """Give these scale buffers a parameter each."""
        for name in names:
            start = torch.zeros_like(getattr(self, name), dtype=torch.float32)
            self.register_parameter(f"log_{name}", nn.Parameter(start))

    def log_scale(self, name: str) -> Tensor | None:
        """The parameter of a scale that is being learned now."""
        return getattr(self, f"log_{name}", None) if self.learning else None

    @property
    def learned_scales(self) -> list[str]:
        """Names of buffers that have a parameter."""
        names = (name for name, _ in self.named_parameters(recurse=False))
        return [name.removeprefix("log_") for name in names if name.startswith("log_")]

    def is_fitted(self, name: str) -> bool:
        """Whether a scale is to follow the weights: neither learned now nor learned once."""
        return self.log_scale(name) is None and name not in self.kept_scales

    @torch.no_grad()
    def follow_scale(
        self, name: str, limit: float = math.inf, grid: Callable[[float], float] | None = None
    ) -> None:
        """Bring a buffer, at most `limit`, and its parameter together; `grid` rounds a scalar."""
        log = getattr(self, f"log_{name}", None)
        if log is None:
            return
        scale = getattr(self, name)
        if not self.learning:
            log.copy_(scale.log())
            return
        self._check_finite(name, log)
        log.clamp_(math.log(SCALE_MIN), math.log(limit) if limit < math.inf else None)
        scale.copy_(log.exp() if grid is None else torch.tensor(grid(log.exp().item())))

    def _check_finite(self, name: str, log: Tensor) -> None:
        if not torch.isfinite(log).all():
            raise EspalierError(
                f"learned scales must stay finite; {name} of {getattr(self, 'path', '')!r} is not: "
                "lower the learning rate"
            )

    def keep_scales(self) -> None:
        """Scales that were learned stay as they are; their parameters go."""
        for name in self.learned_scales:
            if self.learning:
                self.kept_scales.add(name)
            delattr(self, f"log_{name}")
        self.learning = False
