"""Made-up inputs for the walk: what the model computes from them tells what it does with them."""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import Inputs
from .labels import LayoutError
from .masks import classify


def make(inputs: Inputs, lengths: tuple[int, ...], tokens: int, kept: bool) -> dict[str, Tensor]:
    """Every tensor input for samples of `lengths`, padded to `tokens`.

    Indices are 0 and 1, which every table has, in a different pattern for each input.
    """
    samples = len(lengths)
    made = {}
    generator = torch.Generator().manual_seed(1)
    for name, example in inputs.integers.items():
        values = torch.randint(2, (samples, tokens), generator=generator)
        values[:, :2] = torch.tensor([1, 0])
        made[name] = _laid(values, inputs.axes[name]).to(example.dtype)
    for name, example in inputs.floats.items():
        made[name] = _laid(torch.zeros(samples, tokens, example.shape[-1]), inputs.axes[name])
    for name in inputs.masks:
        counts = torch.arange(tokens) < torch.tensor(lengths)[:, None]
        mask = (counts if kept else ~counts).to(inputs.dtypes[name])
        if inputs.dtypes[name].is_floating_point and not kept:
            mask = torch.zeros_like(mask).masked_fill(~counts, -torch.inf)
        made[name] = _laid(mask, inputs.axes[name])
    for name, example in inputs.static.items():
        made[name] = _resized(name, example, tokens)
    return made


def _laid(values: Tensor, axes: tuple[int | None, int]) -> Tensor:
    """[samples, tokens, ...] with its axes as the model has them."""
    batch, _ = axes
    if batch is None:
        return values[0]
    return values if batch == 0 else values.transpose(0, 1)


def _resized(name: str, mask: Tensor, tokens: int) -> Tensor:
    """A mask [tokens, tokens] for another number of tokens, if it is causal or empty."""
    try:
        hidden = causal(mask)
    except LayoutError:
        raise LayoutError(
            f"input {name} must be a causal mask, True or -inf above the diagonal, or empty"
        ) from None
    above = torch.ones(tokens, tokens, dtype=torch.bool).triu(1) & hidden
    if mask.dtype == torch.bool:
        return above
    return torch.zeros(tokens, tokens, dtype=mask.dtype).masked_fill(above, -torch.inf)


def causal(mask: Tensor) -> bool:
    """Whether a square mask of torch's modules is causal; LayoutError if it is not empty either."""
    refuses = mask if mask.dtype == torch.bool else mask < -1
    return len(mask) > 1 and classify(~refuses[None, None], (len(mask),))
