"""What the study of the character model runs: settings, and the tables that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from espalier import Recipe

DENSITIES = (0.5, 0.25, 0.125, 0.0625)
PATTERNS = ("column-balanced", "fine-grained")
SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a run's result depends on, apart from the code.

    Members
    -------
    method: "train" is the dense model, "continue" trains it for as long as the compressed ones,
        "round" only rounds it; all others are espalier's methods.
    density: share of the blocks' matrices kept; embeddings, which the head shares, stay whole.
    weight_bits: 32 leaves floats; 8 and 4 round the matrices. Activations are floats.
    calibration: windows without labels, for the methods that want them.
    """

    method: str = "train"
    density: float = 1.0
    pattern: str = "none"
    weight_bits: int = 32
    steps: int = 4000
    learning_rate: float = 1e-3
    distillation: float = 0.0
    batch: int = 16
    calibration: int = 0
    seed: int = 0

    @property
    def is_dense(self) -> bool:
        return self.method == "train"

    @property
    def dense(self) -> Setting:
        """The model that a compressed one of the same seed starts from."""
        return Setting(seed=self.seed)

    def recipe(self) -> Recipe:
        pruned = self.method not in ("train", "continue", "round")
        return Recipe(
            density=self.density,
            allocation="uniform",
            pattern=self.pattern if pruned else "column-balanced",
            method=self.method if pruned else "one-shot",
            weight_bits=8 if self.weight_bits == 8 else 4,
            arithmetic="float" if self.weight_bits == 32 else "weights",
            distillation=self.distillation,
        )

    def values(self) -> dict[str, object]:
        """As columns of the table."""
        return asdict(self)

    def __str__(self) -> str:
        if self.is_dense:
            return f"dense, seed {self.seed}"
        bits = "float" if self.weight_bits == 32 else f"W{self.weight_bits}"
        place = [f"{self.density:.4g}", self.pattern] if self.density < 1 else []
        parts = [self.method, *place, bits]
        parts += [f"{self.steps} steps"] if self.steps else []
        parts += ["alone"] if self.steps and not self.distillation else []
        return f"{', '.join(parts)}, seed {self.seed}"


RETRAINED = Setting(method="gradual", steps=500, learning_rate=1e-3, distillation=0.5)
CALIBRATION = 128


def baseline() -> list[Setting]:
    """Dense, and trained for as long as the compressed ones; rounded without training."""
    rounded = Setting(method="round", steps=0)
    return [
        Setting(),
        replace(RETRAINED, method="continue", distillation=0.0),
        replace(rounded, weight_bits=8),
        replace(rounded, weight_bits=4),
    ]


def methods() -> list[Setting]:
    """The ways to train, at one density; and pruned once without labels."""
    eighth = replace(RETRAINED, density=0.125, pattern="column-balanced")
    return [
        eighth,
        replace(eighth, distillation=0.0),
        replace(eighth, method="sparsegpt", calibration=CALIBRATION),
        replace(eighth, method="sr-ste"),
        replace(eighth, method="sparsegpt", calibration=CALIBRATION, steps=0, distillation=0.0),
    ]


def densities() -> list[Setting]:
    return [
        replace(RETRAINED, density=density, pattern=pattern)
        for density in DENSITIES
        for pattern in PATTERNS
    ]


def rounded() -> list[Setting]:
    """The same with rounded weights from the first step on."""
    return [
        replace(RETRAINED, density=density, pattern=pattern, weight_bits=bits)
        for bits in (4, 8)
        for pattern in PATTERNS
        for density in DENSITIES[:3]
    ]


def seeds() -> list[Setting]:
    """The dense model and the hardware's pattern, trained again."""
    again = [Setting(), *(replace(RETRAINED, density=d, pattern=PATTERNS[0]) for d in DENSITIES)]
    return [replace(each, seed=seed) for seed in SEEDS[1:] for each in again]


TABLES: dict[str, Callable[[], Iterable[Setting]]] = {
    "baseline": baseline, "densities": densities, "methods": methods, "rounded": rounded,
    "seeds": seeds,
}  # fmt: skip
"""In order of value."""
