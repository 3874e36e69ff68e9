"""What a model is to be compressed to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

from ..errors import RecipeError
from ..spec.config import DE1_SOC, PRESETS, Config
from ..spec.numerics import DELTA_MAX, WEIGHT_LEVELS
from .allocations import ALLOCATIONS, make_allocation
from .distillation import Distillation
from .methods import METHODS, make_method
from .parts import Allocation, Method, Pattern, Score, unknown
from .patterns import make_pattern
from .rounding import check_rounding
from .scores import SCORES, make_score

ARITHMETIC = ("machine", "weights", "float")


@dataclass(frozen=True, kw_only=True)
class MatrixRecipe:
    """The goals of one weight matrix.

    density: share of weights kept, above 0 and at most 1.
    weight_bits: 4 or 8.
    delta_threshold: recurrent layers keep a column's last-sent value while it differs by no more
        than this, in steps of its 8 bits; 0 is exact.
    pattern: which sets of weights are allowed, a name in `patterns.PATTERNS` or a Pattern.
    """

    density: float = 1 / 8
    weight_bits: int = 4
    delta_threshold: int = 0
    pattern: str | Pattern = "column-balanced"

    def __post_init__(self) -> None:
        _check_number("density", self.density, "above 0 and at most 1", 0 < self.density <= 1)
        bits = tuple(WEIGHT_LEVELS)
        _check_number("weight_bits", self.weight_bits, f"one of {bits}", self.weight_bits in bits)
        legal = type(self.delta_threshold) is int and 0 <= self.delta_threshold <= DELTA_MAX
        _check_number(
            "delta_threshold", self.delta_threshold, f"an integer in 0..{DELTA_MAX}", legal
        )
        make_pattern(self.pattern, DE1_SOC)


def _check_number(name: str, value: Any, rule: str, holds: bool) -> None:
    if not holds:
        raise RecipeError(f"{name} must be {rule}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe(MatrixRecipe):
    """What every matrix is to become, exceptions by name, and how training gets there.

    Parameters
    ----------
    density, weight_bits, delta_threshold, pattern: for all matrices, see MatrixRecipe.
    layers: exceptions, {name: {"density": ..., ...}}; a name is a module's or a matrix'
        ("head", "rnn.weight_hh_l0") with * and ? as wildcards. Later ones win.
    score, allocation, method: what is important, how much of each matrix, how to get there: names
        in `scores.SCORES`, `allocations.ALLOCATIONS`, `methods.METHODS`, or objects. Without a
        score it is the method's own: magnitude, for most.
    arithmetic: "machine" gives the accelerator's values, for nn.Linear and nn.GRU; "weights" rounds
        weights only and "float" nothing, for weight matrices of any module: these do not compile.
    embeddings: whether tables of nn.Embedding count as weight matrices (not on the machine).
    delta: recurrent layers take their columns as differences.
    config: the accelerator whose lanes and arrays shape the pattern.
    prune_end: share of the training steps after which the pattern and the scales are fixed.
    updates: how often the pattern is renewed until then.
    weight_scales: how a row's step is found: "max" (the largest weight is the largest level),
        "error" (least squared error of the weights), "output" (of the results, from calibration
        data) or "learned" (by training, once the pattern is fixed; "error" until then).
    activation_scales: the 8-bit range of a layer's input: "max" of the calibration data's
        magnitudes, their "percentile", the range of the least squared error ("mse"), or "learned"
        (by training, from that of "mse"; of linear layers).
    percentile: of the magnitudes, what the range holds.
    smoothing: 0..1, how much of loud input channels is folded into the weights, see
        `smoothing.fold_outliers`; where nothing changes but the rounding.
    delta_penalty: weight, in the loss, of the mean difference that recurrent layers are sent.
    distillation: weight, 0..1, of following the original model's outputs in the loss; or a
        Distillation, for hidden states and their correlations as well.
    temperature: softens both distributions when distilling by a weight.

    Raises
    ------
    RecipeError: when a value is impossible; the message has rule, value and choices.
    """

    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    score: str | Score | None = None
    allocation: str | Allocation = "erdos-renyi"
    method: str | Method = "gradual"
    arithmetic: str = "machine"
    embeddings: bool = False
    delta: bool = True
    config: Config = DE1_SOC
    prune_end: float = 0.6
    updates: int = 50
    weight_scales: str = "error"
    activation_scales: str = "percentile"
    percentile: float = 100.0
    smoothing: float = 0.0
    delta_penalty: float = 0.0
    distillation: float | Distillation = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        _check_types(self)
        super().__post_init__()
        _check_number("prune_end", self.prune_end, "above 0 and at most 1", 0 < self.prune_end <= 1)
        _check_number("updates", self.updates, "at least 1", self.updates >= 1)
        ends = 50 < self.percentile <= 100
        _check_number("percentile", self.percentile, "above 50 and at most 100", ends)
        if not isinstance(self.distillation, Distillation):
            _check_number("distillation", self.distillation, "in 0..1", 0 <= self.distillation <= 1)
        _check_number("temperature", self.temperature, "above 0", self.temperature > 0)
        choices = ", ".join(ARITHMETIC)
        _check_number("arithmetic", self.arithmetic, choices, self.arithmetic in ARITHMETIC)
        make_allocation(self.allocation)
        make_score(self.score or make_method(self.method).score)
        check_rounding(self)
        if self.delta_threshold and not self.delta:
            raise RecipeError(f"delta must be True for a delta_threshold of {self.delta_threshold}")
        object.__setattr__(self, "layers", {key: dict(value) for key, value in self.layers.items()})
        for pattern in self.layers:
            self._override(MatrixRecipe(), pattern)

    def _override(self, base: MatrixRecipe, pattern: str) -> MatrixRecipe:
        choices = [f.name for f in fields(MatrixRecipe)]
        values = {name: getattr(base, name) for name in choices}
        for key, value in self.layers[pattern].items():
            if key not in choices:
                raise RecipeError(f"layers[{pattern!r}] can set {', '.join(choices)}; not {key!r}")
            values[key] = value
        try:
            merged = MatrixRecipe(**_check_types_of(values))
        except RecipeError as error:
            raise RecipeError(f"layers[{pattern!r}]: {error}") from None
        if merged.delta_threshold and not self.delta:
            raise RecipeError(f"layers[{pattern!r}]: delta must be True for a delta_threshold")
        return merged

    def matrix(self, path: str, name: str) -> MatrixRecipe:
        """The goals of matrix `name` of the module at `path`."""
        result = MatrixRecipe(**{f.name: getattr(self, f.name) for f in fields(MatrixRecipe)})
        for pattern in self.layers:
            if _matches(pattern, path, name):
                result = self._override(result, pattern)
        return result

    def names_density(self, path: str, name: str) -> bool:
        """Whether `layers` gives the density of matrix `name` of the module at `path`."""
        return any(
            "density" in values and _matches(pattern, path, name)
            for pattern, values in self.layers.items()
        )

    def check_names(self, matrices: Iterable[tuple[str, str]]) -> None:
        """Raise RecipeError when a pattern of `layers` matches none of the (path, name)."""
        matrices = list(matrices)
        for pattern in self.layers:
            if not any(_matches(pattern, path, name) for path, name in matrices):
                known = ", ".join(f"{path}.{name}".lstrip(".") for path, name in matrices)
                raise RecipeError(f"layers[{pattern!r}] matches no matrix; the model has: {known}")

    @property
    def distills(self) -> Distillation | None:
        """What training follows of the dense model, if anything."""
        if isinstance(self.distillation, Distillation):
            return self.distillation
        if not self.distillation:
            return None
        return Distillation(logits=self.distillation, temperature=self.temperature)

    def to_json(self) -> str:
        """The recipe as text; equal recipes give equal text."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values | {"config": asdict(self.config)}, sort_keys=True, default=repr)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe of `to_json`, or of a part of its values; parts and presets by their names.

        A score, allocation or method with parameters is an object of its name, like
        {"method": {"multi-level": {"heads": 0.5}}}; a distillation is one of its values.

        Raises RecipeError for anything else.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RecipeError(f"a recipe must be JSON: {error}") from None
        if not isinstance(values, dict):
            raise RecipeError(f"a recipe must be a JSON object, not {values!r}")
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise RecipeError(f"a recipe can set {', '.join(known)}; not {name!r}")
        if "config" in values:
            values["config"] = _read_config(values["config"])
        tables = {"score": SCORES, "allocation": ALLOCATIONS, "method": METHODS}
        for name in tables.keys() & values.keys():
            if isinstance(values[name], dict):
                values[name] = _read_part(name, tables[name], values[name])
        if isinstance(values.get("distillation"), dict):
            values["distillation"] = _make("distillation", Distillation, values["distillation"])
        return cls(**values)


def _read_part(kind: str, table: Mapping[str, Any], value: dict[str, Any]) -> Any:
    """A part of {name: {parameter: value}}."""
    if len(value) != 1 or not isinstance(next(iter(value.values())), dict):
        raise RecipeError(f'{kind} must be a name or like {{"name": {{...}}}}, not {value!r}')
    ((name, parameters),) = value.items()
    if name not in table:
        raise unknown(kind, name, list(table))
    return _make(f"{kind} {name!r}", table[name], parameters)


def _make(name: str, maker: Any, parameters: dict[str, Any]) -> Any:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}
    try:
        return maker(**values)
    except TypeError as error:
        raise RecipeError(f"{name}: {error}") from None


def _read_config(value: Any) -> Config:
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]
    if isinstance(value, dict):
        try:
            return Config(**value)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"config: {error}") from None
    raise RecipeError(f"config must be one of: {', '.join(PRESETS)}; not {value!r}")


def _matches(pattern: str, path: str, name: str) -> bool:
    full = f"{path}.{name}".lstrip(".")
    return (
        fnmatchcase(full, pattern) or fnmatchcase(path, pattern) or full.startswith(f"{pattern}.")
    )


def _check_types(recipe: Recipe) -> None:
    numbers = (
        "prune_end", "updates", "percentile", "smoothing", "delta_penalty", "distillation",
        "temperature",
    )  # fmt: skip
    names = [f.name for f in fields(MatrixRecipe)]
    values = {name: getattr(recipe, name) for name in (*names, *numbers)}
    if isinstance(recipe.distillation, Distillation):
        del values["distillation"]
    _check_types_of(values)
    if not isinstance(recipe.config, Config):
        raise RecipeError(f"config must be an espalier.spec.config.Config, not {recipe.config!r}")
    maps = isinstance(recipe.layers, Mapping) and all(
        isinstance(pattern, str) and isinstance(values, Mapping)
        for pattern, values in recipe.layers.items()
    )
    if not maps:
        raise RecipeError(
            f'layers must be like {{"head": {{"density": 1.0}}}}, not {recipe.layers!r}'
        )


def _check_types_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in values.items():
        if (name != "pattern" and not isinstance(value, Real)) or isinstance(value, bool):
            raise RecipeError(f"{name} must be a number, not {value!r}")
    return values
