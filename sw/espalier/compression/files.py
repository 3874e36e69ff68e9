"""Compressed models in files: tensors as safetensors, the recipe as text; no pickles."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from dataclasses import asdict, fields, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import __version__
from ..errors import InputError, RecipeError, UnsupportedModelError
from ..transformer import QuantTransformer, import_tokens
from ..transformer.state import pack_example
from .convert import convert
from .recipe import MatrixRecipe, Recipe
from .report import MatrixReport, Report

FORMAT = "espalier compressed model 1"
NEUTRAL = ("pattern",)
"""Goals of a matrix that its restored module does not depend on."""
EXAMPLE = "example."
"""Before the names of the inputs that a transformer was imported with."""


def save_compressed(model: nn.Module, recipe: Recipe, path: str | Path) -> Path:
    """Write what `compress(original, recipe, ...)` gave; `load_compressed` reads it back."""
    path = Path(path)
    state = {name: value.detach().cpu().clone().contiguous() for name, value in
             model.state_dict().items()}  # fmt: skip
    notes = {
        "format": FORMAT,
        "espalier": __version__,
        "recipe": recipe.to_json(),
        "restore": _shape(recipe).to_json(),
        "report": json.dumps(asdict(model.espalier_report)),
    }
    if isinstance(model, QuantTransformer):
        tensors, notes["example"] = pack_example(model.example)
        state |= {EXAMPLE + name: value.contiguous() for name, value in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, partial, notes)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    return path


def load_compressed(original: nn.Module, path: str | Path) -> nn.Module:
    """A compressed model, from the one that it was made of (its weights do not matter) and a file.

    Of the accelerator's arithmetic it is a copy; of any other, `original` itself is filled. A
    transformer is imported again with the inputs that it was imported with before.

    Raises InputError when the file is damaged, of another kind or of another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error
    if notes.get("format") != FORMAT:
        raise InputError(
            f"{path} must be a file of `espalier compress` ({FORMAT}), not {notes.get('format')!r}"
        )
    recipe = Recipe.from_json(notes["restore"])
    try:
        model = _skeleton(original, recipe, state, notes)
        model.load_state_dict(state)
    except (RecipeError, RuntimeError, UnsupportedModelError, InputError) as error:
        raise InputError(f"{path} must belong to this model; {error}") from None
    report = json.loads(notes["report"])
    matrices = (MatrixReport(**{**m, "shape": tuple(m["shape"])}) for m in report["matrices"])
    model.espalier_report = Report(tuple(matrices), report["lanes"])
    return model.eval()


def _skeleton(
    original: nn.Module, recipe: Recipe, state: dict[str, Tensor], notes: dict[str, str]
) -> nn.Module:
    """The module that a file's tensors belong into; a transformer's example is taken out of
    `state`."""
    if "example" in notes:
        names = [name for name in state if name.startswith(EXAMPLE)]
        tensors = {name.removeprefix(EXAMPLE): state.pop(name) for name in names}
        example = {**tensors, **json.loads(notes["example"])}
        model = QuantTransformer(import_tokens(deepcopy(original).eval(), (), example))
        model.example = example
        return model
    return convert(original, recipe) if recipe.arithmetic == "machine" else original


def _shape(recipe: Recipe) -> Recipe:
    """The recipe without what compression needed and its result does not: parts may be objects."""
    plain = Recipe()
    layers = {
        name: {key: value for key, value in goals.items() if key not in NEUTRAL}
        for name, goals in recipe.layers.items()
    }
    kept = {f.name for f in fields(MatrixRecipe)} - set(NEUTRAL)
    kept |= {"arithmetic", "embeddings", "delta", "config"}
    others = {f.name: getattr(plain, f.name) for f in fields(Recipe) if f.name not in kept}
    return replace(recipe, **{**others, "layers": layers})
