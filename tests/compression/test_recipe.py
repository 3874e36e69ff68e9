"""Recipes: defaults, overrides and refusals."""

import json

import pytest

from espalier.compression import Distillation, Recipe
from espalier.compression.methods import IdentityPrior
from espalier.errors import RecipeError
from espalier.spec.config import TINY


def test_defaults_are_the_first_recipe():
    recipe = Recipe()
    assert (recipe.density, recipe.weight_bits, recipe.delta_threshold) == (1 / 8, 4, 0)
    assert recipe.config.name == "DE1_SOC"
    assert (recipe.pattern, recipe.method) == ("column-balanced", "gradual")
    assert (recipe.score, recipe.allocation) == (None, "erdos-renyi")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"density": 0}, "density must be above 0 and at most 1, not 0"),
        ({"density": 1.5}, "density must be above 0 and at most 1, not 1.5"),
        ({"density": float("nan")}, "density must be above 0 and at most 1, not nan"),
        ({"density": "1/8"}, "density must be a number, not '1/8'"),
        ({"weight_bits": 5}, r"weight_bits must be one of \(4, 8\), not 5"),
        ({"weight_bits": True}, "weight_bits must be a number, not True"),
        ({"delta_threshold": -1}, "delta_threshold must be an integer in 0..254, not -1"),
        ({"delta_threshold": 0.5}, "delta_threshold must be an integer in 0..254, not 0.5"),
        ({"delta_threshold": 3, "delta": False}, "delta must be True for a delta_threshold of 3"),
        ({"prune_end": 0}, "prune_end must be above 0"),
        ({"updates": 0}, "updates must be at least 1"),
        ({"percentile": 20}, "percentile must be above 50"),
        ({"distillation": 2}, "distillation must be in 0..1"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"config": "DE1_SOC"}, "config must be an espalier.spec.config.Config"),
        ({"layers": {"head": 8}}, "layers must be like"),
        ({"layers": {"head": {"bits": 8}}}, "can set density, .*; not 'bits'"),
        ({"layers": {"head": {"weight_bits": 3}}}, r"layers\['head'\]: weight_bits must be one of"),
        ({"layers": {"head": {"density": "all"}}}, r"layers\['head'\]: density must be a number"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_when_made(values, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(**values)


def test_overrides_by_module_matrix_and_wildcard_later_ones_win():
    recipe = Recipe(
        layers={
            "rnn": {"density": 0.5},
            "*.weight_hh_l?": {"weight_bits": 8, "delta_threshold": 2},
            "rnn.weight_hh_l1": {"density": 0.25},
        }
    )
    first, second = (recipe.matrix("rnn", f"weight_hh_l{i}") for i in (0, 1))
    assert (first.density, first.weight_bits, first.delta_threshold) == (0.5, 8, 2)
    assert (second.density, second.weight_bits) == (0.25, 8)
    assert recipe.matrix("rnn", "weight_ih_l0").weight_bits == 4
    assert recipe.matrix("rnn2", "weight_ih_l0").density == 1 / 8


def test_a_pattern_without_a_match_is_an_error_that_lists_the_matrices():
    with pytest.raises(
        RecipeError, match=r"layers\['haed'\] matches no matrix; .* rnn.w, head.weight"
    ):
        Recipe(layers={"haed": {}}).check_names([("rnn", "w"), ("head", "weight")])


def test_text_tells_recipes_apart():
    assert Recipe().to_json() == Recipe().to_json()
    assert json.loads(Recipe(config=TINY).to_json())["config"]["name"] == "TINY"
    assert Recipe(layers={"a": {"density": 1.0}}).to_json() != Recipe().to_json()


def test_recipes_come_back_from_text():
    recipe = Recipe(density=0.1, layers={"head": {"density": 1.0}}, config=TINY, distillation=0.5)
    assert Recipe.from_json(recipe.to_json()) == recipe
    parts = Recipe.from_json(
        '{"config": "TINY", "method": {"identity-prior": {"branches": ["*.f"], "bound": 2.0}},'
        ' "distillation": {"hidden": 1.0, "logits": 0.2}}'
    )
    assert parts.config is TINY
    assert parts.method == IdentityPrior(branches=("*.f",), bound=2.0)
    assert parts.distillation == Distillation(hidden=1.0, logits=0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a recipe must be JSON"),
        ("[1]", "a recipe must be a JSON object"),
        ('{"densty": 1}', "a recipe can set density.*not 'densty'"),
        ('{"config": "HUGE"}', "config must be one of: TINY.*not 'HUGE'"),
        ('{"config": {"name": "x"}}', "config: .*missing"),
        ('{"method": {"magic": {}}}', "method must be one of: gradual.*not 'magic'"),
        ('{"method": {"sr-ste": {"speed": 1}}}', "method 'sr-ste': .*'speed'"),
        ('{"method": {"a": 1}}', "method must be a name or like"),
        ('{"density": "much"}', "density must be a number, not 'much'"),
    ],
)
def test_wrong_texts_are_refused(text, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json(text)
