"""What the study runs: settings, and the tables that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from fsdd_data import BANDS, OFFICIAL
from fsdd_model import CLASSES, HIDDEN, LAYERS

from espalier import Recipe
from espalier.compression.allocations import Global
from espalier.compression.methods import SrSte
from espalier.spec.config import DE1_SOC, Config

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DENSITIES = (1 / 16, 1 / 24, 1 / 12, 1 / 8, 1 / 4)
LANES = (16, 32, 48, 64)
HEAD_DENSITY = 1 / 2
HEAD_WEIGHTS = HIDDEN * CLASSES
DENSE_EPOCHS = 15
UNIFORM = {"allocation": "uniform"}
ERDOS_RENYI = {"allocation": "erdos-renyi"}
WAYS: dict[str, dict[str, Any]] = {
    "erdos-renyi": ERDOS_RENYI,
    "gradual": UNIFORM,
    "global": {"allocation": "global"},
    "inputs": UNIFORM,
    "movement": {**UNIFORM, "score": "movement"},
    "global, movement": {"allocation": Global(normalize=True), "score": "movement"},
    "erdos-renyi, movement": {**ERDOS_RENYI, "score": "movement"},
    "erdos-renyi, sr-ste": {**ERDOS_RENYI, "method": SrSte(ramp=1.0)},
    "erdos-renyi, admm-sr-ste": {**ERDOS_RENYI, "method": "admm-sr-ste"},
    "erdos-renyi, one-shot": {**ERDOS_RENYI, "method": "one-shot"},
    "erdos-renyi, sparsegpt": {**ERDOS_RENYI, "method": "sparsegpt"},
    "least-squares": {**UNIFORM, "method": "least-squares"},
    "erdos-renyi, least-squares": {**ERDOS_RENYI, "method": "least-squares"},
}
"""Of allocation and method; where nothing is said, the method is gradual magnitude
pruning. "inputs" is INPUT_DENSITY for the frames' matrix, and uniform densities elsewhere."""
WINNER = "erdos-renyi, least-squares"
INPUT_DENSITY = 1 / 4
CALIBRATED = ("erdos-renyi, sparsegpt", "least-squares", "erdos-renyi, least-squares")
"""Of these, what needs sample inputs."""
GRU_WEIGHTS = 3 * HIDDEN * (BANDS + HIDDEN) + (LAYERS - 1) * 6 * HIDDEN**2


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a run's result depends on, apart from the code.

    Members
    -------
    split: "official", or the speaker who is left out for the test.
    arithmetic: "float" is the dense model; "machine" the accelerator's.
    density: share of all weights kept, the head's among them (it keeps HEAD_DENSITY of its own).
    method: a name in WAYS.
    epochs: of training; a compressed model starts from the dense one of its seed and split, and
        with 0 epochs it is only rounded.
    """

    split: str = OFFICIAL
    arithmetic: str = "machine"
    density: float = 1.0
    weight_bits: int = 4
    pattern: str = "column-balanced"
    lanes: int = DE1_SOC.lanes
    method: str = "erdos-renyi"
    prune_end: float = 0.6
    distillation: float = 0.5
    temperature: float = 2.0
    epochs: int = 12
    learning_rate: float = 1e-2
    batch: int = 64
    seed: int = 0

    @property
    def dense(self) -> Setting:
        """The float model that a compressed one starts from."""
        return Setting(
            split=self.split, arithmetic="float", weight_bits=32, pattern="none", lanes=0,
            method="none", prune_end=0.0, distillation=0.0, temperature=0.0, epochs=DENSE_EPOCHS,
            learning_rate=4e-3, seed=self.seed,
        )  # fmt: skip

    @property
    def longer(self) -> Setting:
        """The float model, trained for as many epochs as both trainings of a compressed one."""
        return replace(self.dense, epochs=DENSE_EPOCHS + Setting.epochs)

    @property
    def is_dense(self) -> bool:
        return self.arithmetic == "float"

    def recipe(self) -> Recipe:
        """Of the whole model's density: the GRU's matrices keep what the head leaves.

        Distillation is the study's own (`fsdd_model.following`).
        """
        if self.density == 1:
            head = gru = 1.0
        else:
            head = HEAD_DENSITY
            gru = (
                self.density * (GRU_WEIGHTS + HEAD_WEIGHTS) - HEAD_DENSITY * HEAD_WEIGHTS
            ) / GRU_WEIGHTS
        inputs: dict[str, dict[str, object]] = {}
        if self.method == "inputs":
            size = 3 * HIDDEN * BANDS
            gru = (gru * GRU_WEIGHTS - INPUT_DENSITY * size) / (GRU_WEIGHTS - size)
            inputs = {"gru.weight_ih_l0": {"density": INPUT_DENSITY}}
        return Recipe(
            density=gru,
            weight_bits=self.weight_bits,
            pattern=self.pattern,
            prune_end=self.prune_end,
            layers={"head": {"density": head, "pattern": "column-balanced"}} | inputs,
            config=accelerator(self.lanes),
            **WAYS[self.method],
        )

    def __str__(self) -> str:
        if self.is_dense:
            longer = ", longer" if self.epochs > DENSE_EPOCHS else ""
            return f"dense float{longer}, {self.split}, seed {self.seed}"
        parts = [self.pattern, f"1/{1 / self.density:g}", f"W{self.weight_bits}A8"]
        parts += [f"{self.lanes} lanes"] if self.pattern != "fine-grained" else []
        parts += [self.method] if self.method != Setting.method else []
        parts += ["once"] if self.density < 1 and not self.epochs else []
        return f"{', '.join(parts)}, {self.split}, seed {self.seed}"

    def values(self) -> dict[str, object]:
        """As columns of the table."""
        return {**asdict(self), "density": round(self.density, 6)}


def way(setting: Setting) -> str:
    """What figures and tables call its allocation and method."""
    names = {"gradual": "uniform", "inputs": "uniform but inputs"}
    names |= {name: f"uniform, {name}" for name in ("movement", "least-squares")}
    return names.get(setting.method, setting.method)


def accelerator(lanes: int) -> Config:
    """DE1_SOC with its lanes dealt to arrays of so many, as far as they divide."""
    if lanes == DE1_SOC.lanes:
        return DE1_SOC
    arrays = DE1_SOC.total_lanes // lanes
    return replace(DE1_SOC, name=f"{arrays}x{lanes}", lanes=lanes, arrays=arrays)


Table = Callable[[int], Iterable[Setting]]


def baseline(seed: int) -> list[Setting]:
    """The dense model in floats, trained for longer, and rounded to 8 bits without training."""
    rounded = Setting(weight_bits=8, epochs=0, distillation=0.0, seed=seed)
    return [rounded.dense, rounded, rounded.longer]


def densities(seed: int) -> list[Setting]:
    """The hardware's pattern on DE1_SOC, and the yardstick."""
    return [
        Setting(pattern=pattern, density=density, seed=seed)
        for density in DENSITIES
        for pattern in ("column-balanced", "fine-grained")
    ]


def lanes(seed: int) -> list[Setting]:
    """Lanes of an array, at one density."""
    return [Setting(density=1 / 12, lanes=each, seed=seed) for each in LANES]


def uniform(seed: int) -> list[Setting]:
    """One k for all columns against k per column, where 1 / ceil(256 / lanes) is the density."""
    return [
        Setting(pattern=pattern, density=density, lanes=lanes, seed=seed)
        for density, lanes in ((1 / 8, 32), (1 / 16, 16))
        for pattern in ("uniform-k", "column-balanced")
    ]


def methods(seed: int) -> list[Setting]:
    """How much of each matrix, and how training gets there, at two densities."""
    return [
        Setting(method=method, density=density, seed=seed)
        for density in (1 / 24, 1 / 12)
        for method in WAYS
    ]


def winner(seed: int) -> list[Setting]:
    """What has the best validation at 1/24 of all that ran with three seeds, and its yardstick."""
    return [
        Setting(method=WINNER, pattern=pattern, density=density, seed=seed)
        for density in (1 / 24, 1 / 16)
        for pattern in ("column-balanced", "fine-grained")
    ]


def once(seed: int) -> list[Setting]:
    """Pruned and rounded at once, without training."""
    return [
        Setting(method=method, density=density, epochs=0, distillation=0.0, seed=seed)
        for density in (1 / 4, 1 / 8)
        for method in ("gradual", "erdos-renyi", "least-squares", "erdos-renyi, least-squares")
    ]


def speakers(seed: int) -> list[Setting]:
    """Each speaker left out: the dense model and one density of the hardware's pattern."""
    compressed = [Setting(split=speaker, density=1 / 16, seed=seed) for speaker in SPEAKERS]
    return [s for each in compressed for s in (each.dense, each)]


TABLES: dict[str, Table] = {
    table.__name__: table
    for table in (baseline, densities, methods, winner, lanes, once, speakers, uniform)
}
"""In order of value."""
