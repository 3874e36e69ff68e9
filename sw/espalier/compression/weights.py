"""A weight matrix inside a model, whatever module holds it: what every part of compression sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .parts import Pattern

ROWS_FIRST, COLUMNS_FIRST = "rows first", "columns first"
"""Layouts of a parameter: [outputs, inputs, ...], as almost all; [inputs, outputs], as Conv1D."""


@dataclass(eq=False, kw_only=True)
class Weight:
    """A matrix [M outputs, N inputs] with its pattern, its wishes and the methods' memory of it.

    A convolution's filter is a row, its inputs are flattened. `blocks` parts of the rows (the gates
    of a GRU, query, key and value) are patterns of their own.

    Members
    -------
    name: as the user writes it in `Recipe.layers`.
    parameter: the trained parameter, in its own layout.
    holder: the module with the mask (same layout), in `mask_name`, and `mask_frozen`.
    density, bits, pattern: what the recipe wants; bits None leaves real numbers.
    named: whether the recipe gives the density of this very matrix, in `layers`.
    goal: the density that the allocation gave it.
    state: tensors of scores and methods, saved in checkpoints.
    """

    name: str
    parameter: nn.Parameter
    holder: nn.Module
    mask_name: str
    pattern: Pattern
    density: float
    bits: int | None = None
    blocks: int = 1
    layout: str = ROWS_FIRST
    named: bool = False
    goal: float = 1.0
    state: dict[str, Tensor] = field(default_factory=dict)

    def matrix(self, tensor: Tensor) -> Tensor:
        """A tensor of the parameter's layout as [M, N]."""
        return tensor.T if self.layout == COLUMNS_FIRST else tensor.reshape(len(tensor), -1)

    def like_parameter(self, matrix: Tensor) -> Tensor:
        """[M, N] in the parameter's layout."""
        if self.layout == COLUMNS_FIRST:
            return matrix.T
        return matrix.reshape(self.parameter.shape)

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.value.shape)

    @property
    def size(self) -> int:
        return self.parameter.numel()

    @property
    def value(self) -> Tensor:
        """The weights [M, N], pruned ones included; detached, of the same memory."""
        return self.matrix(self.parameter.detach())

    @torch.no_grad()
    def set_value(self, matrix: Tensor) -> None:
        self.parameter.copy_(self.like_parameter(matrix))

    @property
    def mask(self) -> Tensor:
        """Kept entries [M, N], bool."""
        return self.matrix(getattr(self.holder, self.mask_name))

    def set_mask(self, mask: Tensor) -> None:
        getattr(self.holder, self.mask_name).copy_(self.like_parameter(mask))

    @property
    def frozen(self) -> bool:
        """Whether pruned weights get no gradient."""
        return self.holder.mask_frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self.holder.mask_frozen = frozen

    def project(self, score: Tensor, density: float) -> Tensor:
        """The allowed mask [M, N] of this density that keeps the most of a score [M, N]."""
        if density >= 1:
            return torch.ones_like(score, dtype=torch.bool)
        parts = score.chunk(self.blocks)
        if self.pattern.joint and len(parts) > 1:
            mask = self.pattern.mask(torch.stack(parts).sum(0), density)
            return mask.repeat(self.blocks, 1)
        return torch.cat([self.pattern.mask(part, density) for part in parts])

    def reselect(self, column: int, score: Tensor, mask: Tensor) -> Tensor:
        """Kept entries [M] of one column of `mask` when its scores [M] have changed."""
        pairs = zip(score.chunk(self.blocks), mask[:, column].chunk(self.blocks), strict=True)
        return torch.cat([self.pattern.reselect(*pair) for pair in pairs])


def matrix_name(path: str, name: str) -> str:
    """A matrix' name in the model: its module's path and the parameter."""
    return f"{path}.{name}".lstrip(".")
