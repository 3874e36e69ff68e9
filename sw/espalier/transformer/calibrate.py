"""How large every value of a float graph is on sample inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import InputError
from ..spec import numerics
from ..tokens.graph import SCORE_SCALE
from . import float_graph as fg
from .compute import Parameters, compute
from .float_graph import FloatGraph, Value

POOL = 1 << 19
"""Elements kept of each value, of whole tokens; of more, every second token goes, and again."""
MOST_SCORE = numerics.VALUE_MAX * SCORE_SCALE
"""The largest score that 16 bits hold: 32."""


@dataclass
class Range:
    """Of one value [tokens, width] over all samples: its ends, and each channel's magnitude.

    channels, highest, lowest, squares: largest magnitudes, ends and sums of squares [width].
    rows, pool: an even sample of tokens, and its elements.
    """

    low: float = 0.0
    high: float = 0.0
    channels: Tensor | None = None
    parts: list[Tensor] = field(default_factory=list)
    stride: int = 1
    skipped: int = 0
    squares: Tensor | None = None
    highest: Tensor | None = None
    lowest: Tensor | None = None
    count: int = 0

    def add(self, x: Tensor) -> None:
        squares = x.square().sum(0)
        self.squares = squares if self.squares is None else self.squares + squares
        self.count += len(x)
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        largest = x.abs().amax(0)
        self.channels = largest if self.channels is None else torch.maximum(self.channels, largest)
        highest, lowest = x.amax(0), x.amin(0)
        self.highest = highest if self.highest is None else torch.maximum(self.highest, highest)
        self.lowest = lowest if self.lowest is None else torch.minimum(self.lowest, lowest)
        self.parts.append(x[self.skipped :: self.stride].clone())
        self.skipped = (self.skipped - len(x)) % self.stride
        while sum(part.numel() for part in self.parts) > POOL:
            rows = torch.cat(self.parts)
            self.stride *= 2
            self.parts, self.skipped = [rows[::2]], 0

    @property
    def largest(self) -> float:
        return max(-self.low, self.high)

    def before(self, offset: Tensor) -> Range:
        """With each channel's magnitude that of it or of it without its offset, the larger one."""
        alone = torch.maximum(self.highest - offset, offset - self.lowest)
        return replace(self, channels=torch.maximum(self.channels, alone))

    @property
    def mean_square(self) -> Tensor:
        """Of each channel [width]."""
        return self.squares / self.count

    @property
    def rows(self) -> Tensor:
        """A sample of tokens [n, width]; those of values of one width are of the same tokens."""
        return torch.cat(self.parts)

    @property
    def pool(self) -> Tensor:
        return self.rows.flatten()


@dataclass
class Statistics:
    """Ranges by value; for every LayerNorm its largest normalised element and least variance; for
    every attention, how much a weight changes when scores are clipped to what 16 bits hold."""

    ranges: dict[Value, Range] = field(default_factory=dict)
    deviations: dict[Value, float] = field(default_factory=dict)
    variances: dict[Value, float] = field(default_factory=dict)
    clipping: dict[Value, float] = field(default_factory=dict)
    tokens: int = 0
    """The longest sample."""


@torch.no_grad()
def observe(
    graph: FloatGraph, samples: Iterable[Mapping[str, Tensor]], parameters: Parameters
) -> Statistics:
    """Statistics of all values. Raises InputError when there is no sample, or one is not finite."""
    found = Statistics()
    for sample in samples:
        values = compute(graph, sample, parameters)
        for value, x in values.items():
            if not torch.isfinite(x).all():
                raise InputError(f"calibration must be finite; {value.name} is not")
            found.ranges.setdefault(value, Range()).add(x)
            found.tokens = max(found.tokens, len(x))
        for operation in graph.operations:
            if isinstance(operation, fg.LayerNorm):
                _observe_norm(found, operation, values[operation.input])
            elif isinstance(operation, fg.Attention):
                _observe_attention(found, operation, values)
    if not found.ranges:
        raise InputError("calibration must have at least one sample; it is empty")
    return found


def _observe_norm(found: Statistics, operation: fg.LayerNorm, x: Tensor) -> None:
    variance = x.var(-1, correction=0)
    normal = (x - x.mean(-1, keepdim=True)) / (variance[:, None] + operation.eps).sqrt()
    key = operation.output
    found.deviations[key] = max(found.deviations.get(key, 0.0), float(normal.abs().max()))
    found.variances[key] = min(found.variances.get(key, torch.inf), float(variance.min()))


def _observe_attention(found: Statistics, o: fg.Attention, values: Mapping[Value, Tensor]) -> None:
    q, k = (values[x].unflatten(-1, (o.heads, -1)) for x in (o.query, o.key))
    scores = torch.einsum("ihd,jhd->hij", q, k) * o.scale
    if float(scores.abs().max()) <= MOST_SCORE:
        return
    hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(1) & o.causal
    exact, clipped = (
        x.masked_fill(hidden, -torch.inf).softmax(-1)
        for x in (scores, scores.clamp(-MOST_SCORE, MOST_SCORE))
    )
    change = float((exact - clipped).abs().max())
    found.clipping[o.output] = max(found.clipping.get(o.output, 0.0), change)
