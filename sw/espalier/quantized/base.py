"""What quantized modules share: masked matrices with a bit width each, path, float mode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import EspalierError
from ..spec.numerics import WEIGHT_LEVELS
from .learned import LearnedScales
from .weights import apply_mask


class QuantModule(LearnedScales, ABC):
    """A drop-in module: parameters keep the original's names, values are the machine's.

    Members
    -------
    path: the module's path inside the root model; set by compression, read by the compiler.
    bit_widths: weight bits (4 or 8) of each matrix, by parameter name.
    blocks: gates stacked in each matrix (GRU 3, linear layer 1); each is a pattern of its own.
    float_mode: True computes in real numbers, with pruned weights: for calibration.
    mask_frozen: False lets gradients reach pruned weights.
    watched: whether forwards keep what the products are sent, in `sent`.
    sent: column inputs of the last forward in steps of their 8 bits [..., N], by parameter name; of
        a GRU [T, B, N] in its order of time, with small differences held back.
    """

    blocks: int = 1

    def __init__(self) -> None:
        super().__init__()
        self.path = ""
        self.bit_widths: dict[str, int] = {}
        self.float_mode = False
        self.mask_frozen = True
        self.watched = False
        self.sent: dict[str, Tensor] = {}

    def _add_parameter(self, name: str, value: Tensor | None) -> None:
        if value is not None:
            value = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
        self.register_parameter(name, value)

    def _add_matrix(self, name: str, weight: Tensor) -> None:
        self._add_parameter(name, weight)
        self.register_buffer(f"{name}_mask", torch.ones_like(weight, dtype=torch.bool))
        self.bit_widths[name] = 8

    def matrices(self) -> Mapping[str, nn.Parameter]:
        """The weight matrices by parameter name."""
        return {name: getattr(self, name) for name in self.bit_widths}

    def mask(self, name: str) -> Tensor:
        """Kept entries of a matrix (bool buffer)."""
        return getattr(self, f"{name}_mask")

    def set_bit_width(self, name: str, bit_width: int) -> None:
        """Choose the bits of a matrix; call `update_scales` afterwards."""
        if bit_width not in WEIGHT_LEVELS:
            raise ValueError(f"bit_width must be one of {tuple(WEIGHT_LEVELS)}, not {bit_width}")
        self.bit_widths[name] = bit_width

    def masked(self, name: str) -> Tensor:
        """A matrix with its pattern applied."""
        return apply_mask(getattr(self, name), self.mask(name), self.mask_frozen)

    @property
    @abstractmethod
    def row_scales(self) -> list[str]:
        """Names of the buffers with the weights' scales, which may be learned."""

    @abstractmethod
    def update_scales(self) -> None:
        """Fit the weights' scales to weights, masks, bit widths and activation scales."""

    def _scale(self, name: str) -> float:
        """An activation scale. Raises EspalierError while it is not calibrated."""
        value = float(getattr(self, name))
        if not value > 0:
            raise EspalierError(
                f"{type(self).__name__} {self.path!r} has no {name} yet: calibrate it "
                "(espalier.compress does) or call set_scales"
            )
        return value
