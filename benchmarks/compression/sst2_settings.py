"""What the study of SST-2 runs: settings, and the tables that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from sst2_model import ENCODER

from espalier import Recipe

DENSITIES = (0.5, 0.2, 0.1)
PATTERNS = ("column-balanced", "fine-grained")
ONE_SHOT = ("magnitude", "wanda", "sparsegpt")


ALL_ROWS = 60_000
"""More than the training set has."""
CALIBRATION = 128


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a run's result depends on, apart from the code.

    Members
    -------
    method: "fine-tune" makes the dense model of the packaged encoder, "continue" trains it further:
        the model that all others start from, follow and are compared with. "magnitude", "wanda" and
        "sparsegpt" prune it once, "sr-ste" while it is trained; "further" goes on from what was
        retrained in floats with whole words, the same weights kept.
    density: share of the encoder's matrices kept; pooler and classifier stay whole.
    weight_bits: 32 leaves floats; 8 and 4 round the encoder's matrices.
    steps: of training; a compressed model with 0 steps sees `calibration` sentences, no labels.
    distillation, hidden: weights of the dense model's scores and hidden states in the loss.
    examples: rows of the training set that training draws from.
    embedding_density, embedding_bits: of the table of words.
    """

    method: str = "fine-tune"
    density: float = 1.0
    pattern: str = "none"
    weight_bits: int = 32
    steps: int = 1000
    learning_rate: float = 1e-4
    distillation: float = 0.0
    hidden: float = 0.0
    batch: int = 64
    examples: int = 32_000
    calibration: int = 0
    embedding_density: float = 1.0
    embedding_bits: int = 32
    seed: int = 0

    @property
    def is_dense(self) -> bool:
        """Whether it is what compressed models are compared with."""
        return self.method == "continue"

    @property
    def origin(self) -> Setting | None:
        """The run whose model this one starts from; none: the packaged encoder."""
        if self.method == "fine-tune":
            return None
        if self.method == "continue":
            return Setting()
        if self.method == "further":
            return replace(RETRAINED, density=self.density, pattern=self.pattern, seed=self.seed,
                           steps=STEPS[self.density])  # fmt: skip
        return CONTINUED

    def recipe(self) -> Recipe:
        bits = 8 if self.weight_bits == 8 else 4  # floats are in the blocks of 4-bit weights
        goals = {"density": self.density, "weight_bits": bits}
        if self.pattern != "none":
            goals["pattern"] = self.pattern
        known = {
            "magnitude": {"score": "magnitude", "method": "one-shot"},
            "wanda": {"score": "wanda", "method": "one-shot"},
            "sparsegpt": {"method": "sparsegpt"},
            "sr-ste": {"method": "sr-ste"},
        }
        return Recipe(
            density=1.0,
            weight_bits=8,  # of what stays whole
            arithmetic="float" if self.weight_bits == 32 else "weights",
            weight_scales="learned" if self.steps else "error",
            prune_end=0.6 if self.method == "sr-ste" else FIXED,
            layers={ENCODER: goals},
            **known.get(self.method, {"method": "one-shot"}),
        )

    def values(self) -> dict[str, object]:
        """As columns of the table."""
        return asdict(self)

    def __str__(self) -> str:
        if self.method in ("fine-tune", "continue"):
            return f"{self.method}, seed {self.seed}"
        bits = "float" if self.weight_bits == 32 else f"W{self.weight_bits}"
        place = [f"{self.density:.0%}", self.pattern] if self.density < 1 else []
        parts = [self.method, *place, bits]
        if self.embedding_density < 1 or self.embedding_bits != 32:
            rounded = "" if self.embedding_bits == 32 else f" W{self.embedding_bits}"
            parts += [f"embeddings {self.embedding_density:.1%}{rounded}"]
        parts += [f"{self.steps} steps"] if self.steps else []
        return f"{', '.join(parts)}, seed {self.seed}"


FIXED = 0.02
"""Share of the steps after which scales are learned instead of searched in every step."""
CONTINUED = Setting(method="continue", steps=600, learning_rate=5e-5, batch=32, examples=ALL_ROWS)
ONCE = Setting(steps=0, calibration=CALIBRATION)
RETRAINED = Setting(
    method="sparsegpt", learning_rate=2e-4, distillation=0.5, hidden=1.0, batch=32,
    examples=ALL_ROWS, calibration=CALIBRATION,
)  # fmt: skip
STEPS = {0.5: 200, 0.2: 600, 0.1: 600}
"""Of retraining by density: what is left of fewer weights has to move further."""
EMBEDDINGS = {0.5: 0.484, 0.2: 0.175, 0.1: 0.072}
"""Density of the table of words with which the share of the encoder's weights is that of all."""


def baseline() -> list[Setting]:
    """The dense model in floats, and with the encoder's weights rounded."""
    rounded = [replace(ONCE, method="round", weight_bits=bits) for bits in (8, 4)]
    return [Setting(), CONTINUED, *rounded]


def one_shot() -> list[Setting]:
    """Pruned once, no labels."""
    return [
        replace(ONCE, method=method, density=density, pattern=pattern)
        for method in ONE_SHOT
        for density in DENSITIES
        for pattern in PATTERNS
    ]


def retrained() -> list[Setting]:
    """From SparseGPT's weights, trained behind the mask."""
    places = [(0.2, 0), (0.5, 0), (0.1, 0), (0.2, 1), (0.5, 1), (0.1, 1)]
    return [
        replace(RETRAINED, density=density, pattern=PATTERNS[pattern], steps=STEPS[density])
        for density, pattern in places
    ]


def rounded() -> list[Setting]:
    """After the retraining in floats: rounded at once, then with 4 bits trained. Blocks of 8-bit
    rows are smaller, so a part of the weights is chosen anew there, by magnitude."""
    most = [each for each in further() if each.density > 0.1]
    once = {"steps": 0, "distillation": 0.0, "hidden": 0.0}
    return [
        *(replace(each, weight_bits=bits, **once) for bits in (4, 8) for each in most),
        *(replace(each, weight_bits=4) for each in most),
    ]


def further() -> list[Setting]:
    """From the hardware's pattern retrained in floats."""
    after = {"method": "further", "steps": 100, "learning_rate": 1e-4, "calibration": 0}
    return [replace(each, **after) for each in retrained() if each.pattern == PATTERNS[0]]


def embeddings() -> list[Setting]:
    """The table of words alone, and with it a share of all parameters."""
    table = replace(ONCE, method="round", calibration=0)
    return [
        replace(table, embedding_bits=8),
        replace(table, embedding_bits=4),
        *(replace(table, embedding_density=density) for density in DENSITIES),
        *(replace(s, embedding_density=EMBEDDINGS[s.density]) for s in further()),
        *(
            replace(s, embedding_density=EMBEDDINGS[s.density], embedding_bits=4, weight_bits=4)
            for s in further()
        ),
    ]


def seeds() -> list[Setting]:
    """Retrained again, with other orders of the training set."""
    hardware = [each for each in retrained() if each.pattern == PATTERNS[0]]
    return [replace(each, seed=seed) for seed in (1, 2) for each in hardware]


TABLES: dict[str, Callable[[], Iterable[Setting]]] = {
    "baseline": baseline, "retrained": retrained, "rounded": rounded, "embeddings": embeddings,
    "one-shot": one_shot, "seeds": seeds,
}  # fmt: skip
"""In order of value."""
