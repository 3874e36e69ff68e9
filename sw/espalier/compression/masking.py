"""Pruned and rounded weights in any module, by parametrizations: for models that stay in floats.

Every weight matrix is reached, also where a module uses its parameter itself (nn.GRU,
nn.MultiheadAttention). Kinds are told by their structure, so that Hugging Face's models need no
import.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import RecipeError
from ..quantized.learned import LearnedScales
from ..quantized.weights import apply_mask, integer_weight, row_scales
from ..spec.numerics import WEIGHT_LEVELS
from ..spec.tiling import row_blocks
from .convert import check_parameters
from .patterns import make_pattern
from .patterns.column_balanced import ColumnBalanced
from .recipe import MatrixRecipe, Recipe
from .weights import COLUMNS_FIRST, ROWS_FIRST, Weight, matrix_name


class Found(NamedTuple):
    """A weight matrix in a module."""

    module: nn.Module
    path: str
    name: str
    blocks: int
    layout: str


class Masking(LearnedScales):
    """Parametrization: a weight with its pattern, rounded to `bits` with a scale per row if given.

    Members
    -------
    mask: kept entries, in the parameter's layout.
    mask_frozen: False lets gradients reach pruned weights.
    float_mode: True leaves the rounding out: for calibration.
    """

    def __init__(self, weight: Tensor, bits: int | None, layout: str) -> None:
        super().__init__()
        self.bits, self.layout = bits, layout
        self.mask_frozen, self.float_mode = True, False
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        if bits is not None:
            self.register_buffer("row_scale", torch.ones(len(self._rows(weight))))

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.T if self.layout == COLUMNS_FIRST else tensor.flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        masked = apply_mask(weight, self.mask, self.mask_frozen)
        if self.bits is None or self.float_mode:
            return masked
        rows, log = self._rows(masked), self.log_scale("row_scale")
        rounded = integer_weight(rows, self.row_scale, self.bits, log) * self.row_scale[:, None]
        return rounded.T if self.layout == COLUMNS_FIRST else rounded.view(weight.shape)

    @torch.no_grad()
    def update_scales(self, weight: Tensor) -> None:
        """Fit the scales to the weights, or follow what was learned."""
        if self.bits is None:
            return
        if self.is_fitted("row_scale"):
            rows, moment = self._rows(weight * self.mask), next(iter(self.moments.values()), None)
            levels = torch.full_like(rows[0], WEIGHT_LEVELS[self.bits])
            self.row_scale.copy_(row_scales(rows, levels, torch.inf, self.search, moment))
        self.follow_scale("row_scale")

    @property
    def row_scales(self) -> list[str]:
        return [] if self.bits is None else ["row_scale"]


def weight_matrices(model: nn.Module, embeddings: bool = False) -> Iterator[Found]:
    """All weight matrices of a model's modules, in their order; a shared parameter once.

    A parameter that an nn.Embedding shares belongs to the embeddings.
    """
    tables = {
        module.weight for module in model.modules() if isinstance(module, nn.Embedding)
    }  # parameters hash by identity
    seen: set[nn.Parameter] = set() if embeddings else tables
    for path, module in model.named_modules():
        for name, blocks, layout in _matrices_of(module):
            parameter = getattr(module, name)
            if parameter not in seen:
                seen.add(parameter)
                yield Found(module, path, name, blocks, layout)


def _matrices_of(module: nn.Module) -> list[tuple[str, int, str]]:
    """Name, blocks and layout of a module's weight matrices."""
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if isinstance(module, nn.RNNBase):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        return [
            (name, 1 if name.startswith("weight_hr") else gates, ROWS_FIRST)
            for name in own
            if name.startswith("weight")
        ]
    if isinstance(module, nn.MultiheadAttention):
        names = "q_proj_weight", "k_proj_weight", "v_proj_weight"
        joint = [("in_proj_weight", 3, ROWS_FIRST)] if "in_proj_weight" in own else []
        return joint or [(name, 1, ROWS_FIRST) for name in names]
    if is_conv1d(module):
        joint = module.nf == 3 * len(module.weight)  # GPT-2's query, key and value
        return [("weight", 3 if joint else 1, COLUMNS_FIRST)]
    kinds = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding
    return [("weight", 1, ROWS_FIRST)] if isinstance(module, kinds) else []


def is_conv1d(module: nn.Module) -> bool:
    """Hugging Face's Conv1D of GPT-2: y = x·weight + bias, weight [inputs, outputs = nf]."""
    weight = getattr(module, "weight", None)
    return (
        type(module).__name__ == "Conv1D"
        and isinstance(weight, Tensor)
        and weight.dim() == 2
        and weight.shape[1] == getattr(module, "nf", None)
    )


def mask_model(model: nn.Module, recipe: Recipe) -> tuple[nn.Module, list[Weight]]:
    """A copy of `model` with a Masking on every weight matrix, and the matrices.

    Raises RecipeError when there is none, InputError for weights that are not finite.
    """
    check_parameters(model)
    model = copy.deepcopy(model)
    found = list(weight_matrices(model, recipe.embeddings))
    if not found:
        names = sorted({type(module).__name__ for module in model.modules()})
        raise RecipeError(f"the model must have weight matrices; it has: {', '.join(names)}")
    recipe.check_names((each.path, each.name) for each in found)
    holders: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            holders.setdefault(parameter, []).append((module, name))
    weights = []
    for each in found:
        parameter = getattr(each.module, each.name)
        goals = recipe.matrix(each.path, each.name)
        bits = goals.weight_bits if recipe.arithmetic == "weights" else None
        masking = Masking(parameter.detach(), bits, each.layout)
        for module, name in holders[parameter]:
            parametrize.register_parametrization(module, name, masking)
        weights.append(_weight(each, parameter, masking, goals, recipe))
    return model, weights


def _weight(
    found: Found,
    parameter: nn.Parameter,
    masking: Masking,
    goals: MatrixRecipe,
    recipe: Recipe,
) -> Weight:
    pattern, blocks = make_pattern(goals.pattern, recipe.config), found.blocks
    if isinstance(pattern, ColumnBalanced) and not isinstance(found.module, nn.RNNBase):
        rows = parameter.shape[1 if found.layout == COLUMNS_FIRST else 0] // blocks
        blocks *= row_blocks(rows, masking.bits or goals.weight_bits, recipe.config)
    return Weight(
        name=matrix_name(found.path, found.name),
        parameter=parameter,
        holder=masking,
        mask_name="mask",
        pattern=pattern,
        density=goals.density,
        bits=masking.bits,
        blocks=blocks,
        layout=found.layout,
        named=recipe.names_density(found.path, found.name),
    )


def without_masks(model: nn.Module) -> None:
    """Make the masked and rounded values plain parameters again, in place."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name, chain in list(module.parametrizations.items()):
            if isinstance(chain[0], Masking):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
