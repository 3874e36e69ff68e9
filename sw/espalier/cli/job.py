"""A compression that the command line asked for: the model, the data, and what becomes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .build import find
from .compress_report import show
from .progress import Progress
from .shared import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..compression import Recipe, Report
    from .samples import Loss, Samples


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and on what; part of what a checkpoint belongs to."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    loss: str

    def __post_init__(self) -> None:
        rules = {
            "--epochs must be at least 0": (self.epochs, self.epochs >= 0),
            "--batch must be at least 1": (self.batch, self.batch >= 1),
            "--learning-rate must be above 0": (self.learning_rate, self.learning_rate > 0),
        }
        for rule, (value, holds) in rules.items():
            if not holds:
                raise UsageError(f"{rule}, not {value}")


@dataclass
class Job:
    """A model and all that it takes to compress it."""

    model: nn.Module
    recipe: Recipe
    samples: Samples
    tests: Samples | None
    training: Training

    def move(self, device: torch.device) -> None:
        """To a device; all processes get the first one's weights."""
        from ..compression import parallel

        self.device = device
        self.model.to(device)
        for value in (*self.model.parameters(), *self.model.buffers()):
            parallel.of_first(value.detach())

    def loss(self) -> Loss:
        """The function that the command line names."""
        from . import samples

        known = {"cross-entropy": samples.cross_entropy, "mse": samples.squared_error}
        wish = self.training.loss
        if ":" in wish:
            return find(wish)[1]
        if wish not in known:
            raise UsageError(f"--loss must be cross-entropy, mse or FILE:FUNCTION, not {wish!r}")
        follows = self.recipe.distills
        if self.samples.labels is None and follows and follows.logits == 1:
            return samples.no_labels
        return known[wish]

    def run(self, calibration: int, checkpoint: Path | None, every: int) -> nn.Module:
        """The compressed model."""
        import torch

        from .. import compress
        from ..compression import parallel
        from .samples import Batches, in_order

        few = [b for b, _ in in_order(self.few(calibration), self.training.batch, self.device)]
        if not self.training.epochs:
            return compress(self.model, self.recipe, calibration=few)
        torch.manual_seed(self.training.seed + parallel.rank())
        batches = Batches(self.samples, self.training.batch, self.device)
        with Progress("Training") as progress:
            return compress(
                self.model,
                self.recipe,
                calibration=few if needs_calibration(self.recipe) else None,
                batches=batches,
                loss=self.loss(),
                epochs=self.training.epochs,
                learning_rate=self.training.learning_rate,
                checkpoint=self.claim(checkpoint),
                checkpoint_every=every,
                progress=progress,
            )

    def few(self, count: int) -> Samples:
        """The first samples."""
        if count < 1:
            raise UsageError(f"--calibration must be at least 1, not {count}")
        return replace(
            self.samples, inputs={name: x[:count] for name, x in self.samples.inputs.items()},
            labels=None,
        )  # fmt: skip

    def claim(self, folder: Path | None) -> Path | None:
        """The checkpoint's file in a folder that belongs to this very run."""
        from ..compression import parallel

        if folder is None:
            return None
        mine = {
            **{f.name: getattr(self.training, f.name) for f in fields(Training)},
            "data": self.samples.digest(),
            "recipe": json.loads(self.recipe.to_json()),
        }
        notes = folder / "run.json"
        if notes.exists():
            theirs = json.loads(notes.read_text())
            if changed := [name for name, value in mine.items() if theirs.get(name) != value]:
                raise UsageError(
                    f"{folder} must belong to this run; it is of another "
                    f"{', '.join(changed)}: give another --checkpoint, or remove it"
                )
        elif not parallel.rank():
            folder.mkdir(parents=True, exist_ok=True)
            half = notes.with_suffix(".new")  # another process may be looking for it already
            half.write_text(json.dumps(mine, indent=1, sort_keys=True) + "\n")
            half.replace(notes)
        parallel.gathered(None)
        return folder / "run.pt"

    def finish(self, small: nn.Module, path: Path) -> None:
        """Say what came out, and write it; the first of several processes does."""
        from ..compression import parallel, save_compressed

        measures = self.measures(small)
        if parallel.rank():
            return
        written = save_compressed(small, self.recipe, path)
        show(cast("Report", small.espalier_report), measures, self.recipe, written)

    def measures(self, small: nn.Module) -> dict[str, tuple[float, float]]:
        """Before and after on the test arrays, by name."""
        from .samples import measure

        if self.tests is None:
            return {}
        loss, size = self.loss(), max(self.training.batch, 64)
        before, after = (
            measure(model, self.tests, loss, size, self.device) for model in (self.model, small)
        )
        return {name: (value, after[name]) for name, value in before.items()}


def needs_calibration(recipe: Recipe) -> bool:
    """Whether training starts from what sample inputs say."""
    from ..compression.methods import make_method
    from ..compression.scores import make_score

    method = make_method(recipe.method)
    score = make_score(recipe.score or method.score)
    asks = recipe.weight_scales == "output" or recipe.smoothing > 0
    return asks or method.calibrated or score.calibrated
