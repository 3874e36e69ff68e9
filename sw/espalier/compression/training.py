"""Compression in one call, with or without training."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, RecipeError
from ..transformer import is_transformer
from . import parallel
from .batches import Arguments
from .compressor import Compressor
from .recipe import Recipe
from .transformers import on_machine, weights_recipe

_DAMAGE = (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, UnpicklingError)
LossFunction = Callable[[nn.Module, Any], Tensor]


def compress(
    model: nn.Module,
    recipe: Recipe | None = None,
    *,
    calibration: Any = None,
    batches: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    epochs: int = 1,
    steps: int | None = None,
    learning_rate: float = 1e-2,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[int, int, float], None] | None = None,
) -> nn.Module:
    """A compressed copy of `model` with the accelerator's values; the original is left untouched.

        small = espalier.compress(model, Recipe(density=1/8), calibration=[x0, x1])
        small = espalier.compress(model, recipe, batches=loader, loss=loss, epochs=20)
        # def loss(model, batch): return cross_entropy(model(batch[0]), batch[1])

    Without `batches` the weights are pruned and rounded at once, and `calibration` gives the
    activation scales. With `batches` and `loss` the copy is trained meanwhile (Adam, learning rate
    falling by a half cosine).

    Arguments
    ---------
    calibration: sample inputs, each a tensor, a tuple or a dict of the forward's arguments.
    batches: what to train on, iterated again for every epoch; `steps` counts batches instead.
    loss: loss(model, batch), a scalar; it calls the model itself.
    checkpoint: file that is written every `checkpoint_every` steps and at the end, and continued
        from when it exists: the result is that of a run without interruption, as long as the order
        of `batches` is fixed or follows from torch's default random generator.
    progress: called with (steps done, steps in all, loss) after each step.
    learning_rate: Adam's at the start. Pruned 4-bit weights have to move far: 1e-2, up to 2e-2 for
        small models, beats what is usual for floats; less for models that become unstable.

    The result is kept with torch.save(small.state_dict(), ...) and restored by load_state_dict into
    the same original, compressed at once with the same recipe.

    In several processes (`torch.distributed` initialized; `parallel`) `batches` gives each process
    its share of every batch, and all return the same model; the first writes the checkpoint.

    A transformer (attention or LayerNorms, no recurrence) always needs `calibration`; what comes
    back is a `QuantTransformer`, whose results are a dict by name.

    Returns the compressed model in evaluation mode; `espalier_report` has its achieved densities.
    Raises RecipeError for impossible wishes, InputError for unusable data.
    """
    recipe = Recipe() if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe must be an espalier.Recipe, not {recipe!r}")
    transformer, wanted = is_machine_transformer(model, recipe), recipe
    if transformer:
        recipe = weights_recipe(recipe, calibration)
    if batches is None:
        if calibration is None or loss is not None:
            raise RecipeError("compress needs calibration=batches, or batches= and loss= to train")
        compressor = Compressor(model, recipe, 0, calibration=calibration)
        return _finished(compressor, wanted, calibration, transformer)
    if loss is None:
        raise RecipeError("training needs loss=, a function of (model, batch)")
    _check_loss(loss)
    total = _total_steps(batches, epochs, steps)
    compressor = Compressor(model, recipe, total, calibration=calibration)
    _Trainer(compressor, batches, loss, learning_rate, checkpoint, checkpoint_every).run(progress)
    return _finished(compressor, wanted, calibration, transformer)


def is_machine_transformer(model: Any, recipe: Recipe) -> bool:
    """Whether a compression goes by way of `QuantTransformer`."""
    machine = recipe.arithmetic == "machine"
    return machine and isinstance(model, nn.Module) and is_transformer(model)


def _finished(
    compressor: Compressor, recipe: Recipe, calibration: Any, transformer: bool
) -> nn.Module:
    model = compressor.finish()
    if not transformer:
        return model
    return on_machine(model, recipe, compressor.run.weights, calibration)


def _check_loss(loss: LossFunction) -> None:
    try:
        inspect.signature(loss).bind(None, None)
    except TypeError as error:
        raise RecipeError(f"loss must take (model, batch); it cannot: {error}") from None


def _total_steps(batches: Iterable[Any], epochs: int, steps: int | None) -> int:
    if isinstance(batches, Iterator):
        raise RecipeError(
            "batches must be iterable again and again, like a list; it is an iterator"
        )
    if steps is None:
        if not hasattr(batches, "__len__"):
            raise RecipeError("steps= must be given for batches without a length")
        if type(epochs) is not int or epochs < 1:
            raise RecipeError(f"epochs must be an integer of at least 1, not {epochs!r}")
        steps = epochs * len(batches)
        if steps == 0:
            raise InputError("batches must have at least one batch; it is empty")
    if type(steps) is not int or steps < 1:
        raise RecipeError(f"steps must be an integer of at least 1, not {steps!r}")
    return steps


class _Trainer:
    """The loop of `compress`; a checkpoint has weights, optimizer, random state and position."""

    def __init__(
        self,
        compressor: Compressor,
        batches: Iterable[Any],
        loss: LossFunction,
        learning_rate: float,
        checkpoint: str | Path | None,
        checkpoint_every: int,
    ) -> None:
        self.compressor, self.batches, self.loss_function = compressor, batches, loss
        self.learning_rate = learning_rate
        self.path = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every = checkpoint_every
        trained = [p for p in compressor.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=learning_rate, fused=True)  # a pass, not 8
        self.position = 0
        """Batches taken from the present epoch."""
        self.epoch_state = torch.get_rng_state()
        """Random state at the present epoch's start: what a shuffled order follows from."""

    def run(self, progress: Callable[[int, int, float], None] | None) -> None:
        """Train to the last step, from the checkpoint on if there is one."""
        if self.path is not None and self.path.exists():
            self._load()
        hook = self.compressor.model.register_forward_hook(self._remember, with_kwargs=True)
        try:
            self._run(progress)
        finally:
            hook.remove()

    def _run(self, progress: Callable[[int, int, float], None] | None) -> None:
        total = self.compressor.total_steps
        for batch in self._endless():
            if self.compressor.steps >= total:
                break
            value = self._step(batch)
            self.position += 1
            done = self.compressor.steps
            if self.path is not None and (done % self.checkpoint_every == 0 or done == total):
                self._save()
            if progress is not None:
                progress(done, total, value)

    def _remember(
        self, model: nn.Module, args: tuple, kwargs: dict[str, Any], outputs: Any
    ) -> None:
        """Forward hook: the loss calls the model; distillation needs what went in and out."""
        self.called = Arguments(args, kwargs), outputs

    def _endless(self) -> Iterator[Any]:
        """Batches epoch after epoch, from the stored position of a resumed one."""
        while True:
            skip, present = self.position, torch.get_rng_state()
            if skip:
                torch.set_rng_state(self.epoch_state)
            else:
                self.epoch_state = present
            iterator = iter(self.batches)
            for _ in range(skip):
                next(iterator, None)
            if skip:
                torch.set_rng_state(present)
            empty = True
            for batch in iterator:
                empty = False
                yield batch
            if empty and not skip:
                raise InputError("batches must have at least one batch; it is empty")
            self.position = 0

    def _step(self, batch: Any) -> float:
        compressor = self.compressor
        compressor.model.train()
        cosine = math.cos(math.pi * compressor.steps / compressor.total_steps)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate * (1 + cosine) / 2
        self.called = None
        task = self.loss_function(compressor.model, batch)
        self._check(task)
        loss = task if self.called is None else compressor.loss(task, *self.called)
        self.optimizer.zero_grad()
        loss.backward()
        parallel.average_gradients(compressor.model.parameters(), batch)
        compressor.run.see_gradients()
        self.optimizer.step()
        compressor.step()
        return parallel.mean_loss(loss, batch)

    def _check(self, loss: Any) -> None:
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise InputError(f"loss must return a scalar tensor with a gradient, not {loss!r}")
        if not torch.isfinite(loss).all():
            raise InputError(
                f"loss must be finite; it is {loss.item()} at step {self.compressor.steps}: "
                "look for NaN in the data, or lower the learning rate"
            )

    def _save(self) -> None:
        """Write the checkpoint whole or not at all; the first of several processes does."""
        random = parallel.gathered((*self._random_states(), self.epoch_state))
        if parallel.rank():
            return
        state = {
            "compressor": self.compressor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
            "position": self.position,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.path)

    def _random_states(self) -> tuple[Tensor, Tensor | None]:
        """Of the CPU, and of the GPU that the model is on."""
        device = next(self.compressor.model.parameters()).device
        return torch.get_rng_state(), _cuda_state(device)

    def _load(self) -> None:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self.compressor.load_state_dict(state["compressor"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.position = int(state["position"])
            self._check_processes(len(state["random"]))
            mine, cuda, self.epoch_state = state["random"][parallel.rank()]
            torch.set_rng_state(mine)
            if cuda is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(cuda)
        except RecipeError as error:
            raise RecipeError(f"{self.path}: {error}") from None
        except _DAMAGE as error:
            raise InputError(
                f"a checkpoint must be whole; {self.path} cannot be read ({error}): remove it"
            ) from error

    def _check_processes(self, saved: int) -> None:
        if saved != parallel.processes():
            raise RecipeError(
                f"a run must continue with as many processes as it had, {saved}, not "
                f"{parallel.processes()}; remove the checkpoint to start anew"
            )


def _cuda_state(device: torch.device) -> Tensor | None:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None
