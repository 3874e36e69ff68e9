"""Compression of transformers: weights first, in the user's own model, then the machine's values.

Pruning and rounding work by parametrizations, so that whatever the model does with its parameters
is trained; what comes out is imported, calibrated and becomes a `QuantTransformer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import RecipeError
from ..transformer import Options, QuantTransformer, quantize
from .batches import Arguments, as_batches
from .recipe import Recipe
from .weights import Weight

RANGES: Mapping[str, str] = {"max": "max", "mse": "mse", "learned": "mse"}
"""Options.activation_range by Recipe.activation_scales; "percentile" gives the recipe's."""


def weights_recipe(recipe: Recipe, calibration: Any) -> Recipe:
    """What the user's model is compressed with: weights only.

    Raises RecipeError without samples, which the machine's scales need.
    """
    if calibration is None:
        raise RecipeError("a transformer's scales need sample inputs: give calibration=")
    return replace(recipe, arithmetic="weights", activation_scales="max")


def on_machine(
    model: nn.Module, recipe: Recipe, weights: list[Weight], calibration: Any
) -> QuantTransformer:
    """The compressed model with the accelerator's integers, and its `espalier_report`.

    Matrices that were left alone, such as a head tied to embeddings, get 8 bits.
    """
    bits = {weight.name: recipe.matrix(*_split(weight.name)).weight_bits for weight in weights}
    batches = [_arguments(batch) for batch in as_batches(calibration)]
    wanted = recipe.activation_scales
    options = Options(RANGES.get(wanted, recipe.percentile))
    first = batches[0]
    result = quantize(
        model, first.args, first.kwargs, calibration=batches,
        weight_bits={**bits, "": 8}, options=options,
    )  # fmt: skip
    result.espalier_report = model.espalier_report
    return result.eval()


def _split(name: str) -> tuple[str, str]:
    path, _, last = name.rpartition(".")
    return path, last


def _arguments(batch: Any) -> Arguments:
    if isinstance(batch, Arguments):
        return batch
    if isinstance(batch, Mapping):
        return Arguments((), batch)
    return Arguments((batch,) if isinstance(batch, Tensor) else tuple(batch), {})
