"""What the study of continuous speech runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from espalier import Recipe

LONGER = 8
"""Epochs of a model that is trained further than the others."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """density 1 is the dense model in floats; thresholds in steps of a column's 8 bits."""

    density: float = 1 / 12
    threshold: int = 0
    penalty: float = 0.0
    epochs: int = 3
    learning_rate: float = 1e-2
    batch: int = 12
    distillation: float = 0.5
    seed: int = 0

    @property
    def dense(self) -> Setting:
        return Setting(
            density=1.0, epochs=5, learning_rate=4e-3, distillation=0.0, seed=self.seed
        )  # fmt: skip

    def recipe(self) -> Recipe:
        return Recipe(
            density=self.density,
            allocation="erdos-renyi",
            delta_threshold=self.threshold,
            delta_penalty=self.penalty,
            distillation=self.distillation,
            layers={"head": {"density": 0.5, "delta_threshold": 0}},
        )

    def __str__(self) -> str:
        if self.density == 1:
            return f"dense, seed {self.seed}"
        penalty = f", penalty {self.penalty:g}" if self.penalty else ""
        penalty += f", {self.epochs} epochs" if self.epochs != Setting.epochs else ""
        return f"1/{1 / self.density:g}, threshold {self.threshold}{penalty}, seed {self.seed}"

    def values(self) -> dict[str, object]:
        return {**asdict(self), "density": round(self.density, 6)}


def settings(seed: int) -> list[Setting]:
    """In order of value."""
    plain = Setting(seed=seed)
    trained = [replace(plain, threshold=t) for t in (16, 8, 32)]
    longer = [replace(plain, threshold=t, epochs=LONGER) for t in (12, 14, 0)]
    return [plain.dense, plain, trained[0], *longer, replace(trained[0], penalty=2.0), *trained[1:]]


def setting_of(row: dict[str, str]) -> Setting:
    kinds = {"int": int, "float": float}
    return Setting(**{f.name: kinds[f.type](row[f.name]) for f in fields(Setting)})
