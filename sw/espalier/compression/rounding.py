"""What a recipe can ask for about rounding, and what it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..quantized.weights import SEARCHES
from .ranges import RANGES

if TYPE_CHECKING:
    from .recipe import Recipe

WEIGHT_SCALES = (*SEARCHES, "learned")
"""Choices of `Recipe.weight_scales`."""


def check_rounding(recipe: Recipe) -> None:
    """Raise RecipeError for impossible wishes about rounding."""
    _check_choice("weight_scales", recipe.weight_scales, WEIGHT_SCALES)
    _check_choice("activation_scales", recipe.activation_scales, tuple(RANGES))
    if recipe.activation_scales != "percentile" and recipe.percentile != 100:
        raise RecipeError(
            f'activation_scales must be "percentile" for a percentile of {recipe.percentile}, not '
            f"{recipe.activation_scales!r}"
        )
    if not 0 <= recipe.smoothing <= 1:
        raise RecipeError(f"smoothing must be in 0..1, not {recipe.smoothing!r}")
    if not recipe.delta_penalty >= 0:
        raise RecipeError(f"delta_penalty must be at least 0, not {recipe.delta_penalty!r}")
    if recipe.delta_penalty and not (recipe.delta and recipe.arithmetic == "machine"):
        raise RecipeError('a delta_penalty needs delta=True and arithmetic="machine"')


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(f"{name} must be one of: {', '.join(choices)}; not {value!r}")
