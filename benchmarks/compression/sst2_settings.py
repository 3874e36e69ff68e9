"""What the study of SST-2 runs: settings, and the tables that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from sst2_model import ENCODER

from espalier import Recipe

DENSITIES = (0.5, 0.2, 0.1)
PATTERNS = ("column-balanced", "fine-grained")
ONE_SHOT = ("magnitude", "wanda", "sparsegpt")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a run's result depends on, apart from the code.

    Members
    -------
    density: share of the encoder's matrices kept; pooler, classifier and embeddings stay whole.
    method: "fine-tune" is the dense model, "magnitude", "wanda" and "sparsegpt" prune it once.
    weight_bits: 32 leaves floats; 8 and 4 round the encoder's matrices.
    steps: of training; a compressed model with 0 steps sees `calibration` sentences, no labels.
    examples: rows of the training set that fine-tuning and retraining draw from.
    """

    method: str = "fine-tune"
    density: float = 1.0
    pattern: str = "none"
    weight_bits: int = 32
    steps: int = 1000
    learning_rate: float = 1e-4
    distillation: float = 0.0
    batch: int = 64
    examples: int = 32_000
    calibration: int = 0
    seed: int = 0

    @property
    def is_dense(self) -> bool:
        return self.method == "fine-tune"

    @property
    def dense(self) -> Setting:
        """The fine-tuned model that a compressed one starts from: one for all."""
        return Setting()

    def recipe(self) -> Recipe:
        goals = {"density": self.density}
        if self.pattern != "none":
            goals["pattern"] = self.pattern
        if self.weight_bits != 32:
            goals["weight_bits"] = self.weight_bits
        known = {
            "fine-tune": {},
            "round": {},
            "magnitude": {"score": "magnitude", "method": "one-shot"},
            "wanda": {"score": "wanda", "method": "one-shot"},
            "sparsegpt": {"method": "sparsegpt"},
        }
        return Recipe(
            density=1.0,
            weight_bits=8,
            arithmetic="float" if self.weight_bits == 32 else "weights",
            distillation=self.distillation,
            layers={ENCODER: goals},
            **known[self.method],
        )

    def values(self) -> dict[str, object]:
        """As columns of the table."""
        return asdict(self)

    def __str__(self) -> str:
        if self.is_dense:
            return f"fine-tuned, seed {self.seed}"
        bits = "float" if self.weight_bits == 32 else f"W{self.weight_bits}"
        parts = [self.method, f"{self.density:.0%}", self.pattern, bits]
        parts += [f"{self.steps} steps"] if self.steps else []
        return f"{', '.join(parts)}, seed {self.seed}"


def baseline() -> list[Setting]:
    """The dense model in floats, and with the encoder's weights rounded."""
    return [
        Setting(),
        *(
            Setting(method="round", weight_bits=bits, steps=0, calibration=CALIBRATION)
            for bits in (8, 4)
        ),
    ]


CALIBRATION = 128


def one_shot() -> list[Setting]:
    """Pruned once, no labels."""
    return [
        Setting(method=method, density=density, pattern=pattern, steps=0, calibration=CALIBRATION)
        for method in ONE_SHOT
        for density in DENSITIES
        for pattern in PATTERNS
    ]


def retrained() -> list[Setting]:
    """Pruned once by Wanda's score, then trained for a short while behind the mask."""
    return [
        Setting(
            method="wanda",
            density=density,
            pattern=pattern,
            steps=150,
            batch=32,
            learning_rate=2e-4,
            distillation=0.5,
            calibration=CALIBRATION,
        )
        for density in DENSITIES
        for pattern in PATTERNS
    ]


def longer() -> list[Setting]:
    """From SparseGPT's weights, and four times as long."""
    return [
        Setting(
            method="sparsegpt",
            density=density,
            pattern=pattern,
            steps=600,
            batch=32,
            learning_rate=2e-4,
            distillation=0.5,
            calibration=CALIBRATION,
        )
        for density in (0.2, 0.5, 0.1)
        for pattern in PATTERNS
    ]


def rounded() -> list[Setting]:
    """The hardware's pattern with 4-bit weights, trained for a short while."""
    return [
        Setting(
            method="wanda",
            density=density,
            pattern="column-balanced",
            weight_bits=4,
            steps=150,
            batch=32,
            learning_rate=2e-4,
            distillation=0.5,
            calibration=CALIBRATION,
        )
        for density in DENSITIES
    ]


TABLES: dict[str, Callable[[], Iterable[Setting]]] = {
    "baseline": baseline, "one-shot": one_shot, "retrained": retrained, "longer": longer,
    "rounded": rounded,
}  # fmt: skip
"""In order of value."""
