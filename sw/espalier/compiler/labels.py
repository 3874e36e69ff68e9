"""Tensors of the traced model as labels: which element of which value lies where.

Every entry of a labelled tensor says (id, b, t): element `id` of the graph's values, of sample b,
at time step t. Data movement is then done by torch itself, on these integers, with a small batch
and a few time steps: whatever slices, reshapes or transposes do, the labels say what came of it.
b = `any_sample` and t = `any_step` mark what is the same for all samples and steps; id = ZERO is
the constant 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

ZERO = -1


class LayoutError(Exception):
    """A tensor's layout cannot be followed; the message follows the operator's name."""


class TimeAxisError(LayoutError):
    """A GRU runs over another axis than the one taken as time."""


@dataclass(frozen=True)
class Labels:
    """The coding for `batch` samples and `steps` time steps."""

    batch: int
    steps: int

    @property
    def any_sample(self) -> int:
        return self.batch

    @property
    def any_step(self) -> int:
        return self.steps

    def encode(self, ids: np.ndarray, b: np.ndarray, t: np.ndarray) -> torch.Tensor:
        """int64 labels of ids, b and t, broadcast to one shape."""
        code = ((ids + 1) * (self.batch + 1) + b) * (self.steps + 1) + t
        return torch.from_numpy(np.ascontiguousarray(code, np.int64))

    def decode(self, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids, b, t) of labels, each of their shape."""
        rest, t = np.divmod(labels.numpy(), self.steps + 1)
        ids, b = np.divmod(rest, self.batch + 1)
        return ids - 1, b, t

    def tensor(
        self, ids: np.ndarray, batch_axis: int | None, time_axis: int | None
    ) -> torch.Tensor:
        """Labels of feature ids, with batch and time axes put in where the result has them."""
        b, t = np.array(self.any_sample), np.array(self.any_step)
        axes = sorted(axis for axis in (batch_axis, time_axis) if axis is not None)
        ids = np.expand_dims(ids, axes) if axes else ids
        if batch_axis is not None:
            b = along(np.arange(self.batch), batch_axis, ids.ndim)
        if time_axis is not None:
            t = along(np.arange(self.steps), time_axis, ids.ndim)
        return self.encode(ids, b, t)

    def zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self.encode(np.full(shape, ZERO), np.array(self.any_sample), np.array(self.any_step))

    def axes(self, labels: torch.Tensor) -> tuple[np.ndarray, int | None, int | None]:
        """(feature ids, batch axis, time axis): the inverse of `tensor`.

        Raises LayoutError when samples or steps do not lie in order along one axis each.
        """
        _, b, t = self.decode(labels)
        batch_axis = self._axis(b, self.batch, "batch")
        time_axis = self._axis(t, self.steps, "time")
        return self.features(labels, batch_axis, time_axis), batch_axis, time_axis

    def features(
        self, labels: torch.Tensor, batch_axis: int | None, time_axis: int | None
    ) -> np.ndarray:
        """Feature ids of a tensor whose batch and time axes are given.

        Entries may also be the same for all samples or steps.

        Raises LayoutError when samples or steps do not lie in order along these axes.
        """
        ids, b, t = self.decode(labels)
        first = ids
        for axis, position, size in ((batch_axis, b, self.batch), (time_axis, t, self.steps)):
            order = (
                np.array(size)
                if axis is None
                else along(np.arange(ids.shape[axis]), axis, ids.ndim)
            )
            if ((position != order) & (position != size)).any():
                raise LayoutError(
                    "must have its samples and time steps in order along its batch and time axes"
                )
            first = first if axis is None else first.take([0], axis)
        if (ids != first).any():
            raise LayoutError("mixes the batch or time axis with features")
        return first.squeeze(tuple(axis for axis in (batch_axis, time_axis) if axis is not None))

    @staticmethod
    def _axis(position: np.ndarray, size: int, name: str) -> int | None:
        """The axis along which `position` counts up; None when it is `size` ("any") everywhere."""
        known = position != size
        if not known.any():
            return None
        for axis in range(position.ndim):
            if position.shape[axis] == size:
                expected = along(np.arange(size), axis, position.ndim)
                if (~known | (position == expected)).all():
                    return axis
        raise LayoutError(f"leaves no axis that is the {name} axis in its order")

    def rows(self, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ids [N, features] of the vectors along the last axis, with sample and step [N] of each.

        Raises LayoutError when one vector holds several samples or steps.
        """
        width = labels.shape[-1]
        ids, b, t = (part.reshape(-1, width) for part in self.decode(labels))
        sample, step = b.min(axis=1), t.min(axis=1)
        if ((b != sample[:, None]) & (b != self.any_sample)).any():
            raise LayoutError("works across the batch axis")
        if ((t != step[:, None]) & (t != self.any_step)).any():
            raise LayoutError("works across the time axis, which has no fixed length")
        return ids, sample, step

    def steps_used(self, labels: torch.Tensor) -> str:
        """'none', 'last' or 'all' time steps. Raises LayoutError for others, or single samples."""
        _, b, t = self.decode(labels)
        samples, steps = np.unique(b[b != self.any_sample]), np.unique(t[t != self.any_step])
        if len(samples) not in (0, self.batch):
            raise LayoutError("takes single samples out of the batch")
        if len(steps) == 0:
            return "none"
        if len(steps) == self.steps:
            return "all"
        if len(steps) == 1 and steps[0] == self.steps - 1:
            return "last"
        raise LayoutError(
            "depends on a fixed length: only all time steps or the last one can be taken"
        )


def along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """A vector laid along one of `ndim` axes."""
    shape = [1] * ndim
    shape[axis] = len(values)
    return values.reshape(shape)
