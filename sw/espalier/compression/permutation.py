"""Which rows share a lane: an order of a layer's units that lets the pattern keep more.

Row r lives in lane r mod L, and a column keeps the same number of rows in every lane; so it pays
when units that matter for the same columns live in different lanes. An order is folded into the
model: the layer's rows and its consumers' columns move together, nothing is computed differently,
and the reordered model is compressed and compiled like any other.

    order = find_order(scores, density=1 / 8, lanes=32)
    model = reorder(model, "gru", ["head"], order.units, check=x)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .batches import as_batches, call, tensors
from .patterns.column_balanced import by_lane, column_balanced_mask

TOLERANCE = 1e-4
"""Largest relative difference of results that a reordered model may have: sums in another order."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """units: the unit [H] at each place. before, after: share of the score that the pattern keeps;
    fine_grained: what any pattern of this density could."""

    units: Tensor
    before: float
    after: float
    fine_grained: float

    @property
    def gain(self) -> float:
        """Share of the pattern's loss against fine-grained that the order wins back."""
        lost = self.fine_grained - self.before
        return (self.after - self.before) / lost if lost > 0 else 0.0


def find_order(
    scores: Sequence[Tensor],
    *,
    density: float,
    lanes: int,
    steps: int = 2000,
    seed: int = 0,
) -> Order:
    """An order of the units by hill climbing: swap two of different lanes where that keeps more.

    scores: [H, N_i] for every matrix with these units as rows, such as the gates of a GRU.
    """
    score = torch.cat([s.detach().double() for s in scores], dim=1)  # [H, N]
    height = len(score)
    mask = column_balanced_mask(score, density, lanes, arrays=1, group=8)
    words = by_lane(mask.long(), lanes, 0).sum(0).amax(0)  # [N], k of every column
    units = torch.arange(height)
    generator = torch.Generator().manual_seed(seed)
    per_lane = [_kept(score[units[lane::lanes]], words) for lane in range(min(lanes, height))]
    before = sum(per_lane)
    for _ in range(steps):
        a, b = torch.randint(height, (2,), generator=generator).tolist()
        if a % lanes == b % lanes:
            continue
        swapped = units.clone()
        swapped[[a, b]] = units[[b, a]]
        both = [a % lanes, b % lanes]
        kept = [_kept(score[swapped[lane::lanes]], words) for lane in both]
        if sum(kept) > sum(per_lane[lane] for lane in both):
            units = swapped
            for lane, value in zip(both, kept, strict=True):
                per_lane[lane] = value
    total = float(score.sum())
    best = score.flatten().topk(int(mask.sum())).values.sum()
    return Order(
        units=units,
        before=before / total,
        after=sum(per_lane) / total,
        fine_grained=float(best) / total,
    )


def _kept(score: Tensor, words: Tensor) -> float:
    """What one lane [slots, N] keeps with k = words [N] of every column."""
    ranked = score.sort(dim=0, descending=True).values
    return float((ranked * (torch.arange(len(score))[:, None] < words)).sum())


def gate_scores(gru: nn.GRU, layer: int = 0, direction: str = "") -> list[Tensor]:
    """|w| of the gates of a GRU layer, [H, inputs] each; direction "" or "_reverse"."""
    names = [f"weight_{part}_l{layer}{direction}" for part in ("ih", "hh")]
    return [gate.abs() for name in names for gate in getattr(gru, name).detach().chunk(3)]


def reorder(
    model: nn.Module, producer: str, consumers: Sequence[str], units: Tensor, check: Any
) -> nn.Module:
    """A copy of `model` with a layer's units in another order, folded into its consumers.

    producer: name of an nn.Linear, or of the last layer of a one-directional nn.GRU (with a layer
        number, "gru.0", of an inner one: its consumer is the next layer).
    consumers: names of the nn.Linear and nn.GRU modules that take its output, and nothing else.
    check: sample inputs; results must stay the same, or the consumers were not all.
    Raises RecipeError when they do not.
    """
    result = copy.deepcopy(model).eval()
    with torch.no_grad():
        module, layer = _find(result, producer)
        _permute_rows(module, layer, units)
        if isinstance(module, nn.GRU) and layer + 1 < module.num_layers:
            inner = getattr(module, f"weight_ih_l{layer + 1}")
            inner.copy_(inner[:, units])
        for name in consumers:
            _permute_inputs(result.get_submodule(name), units)
        _check_equal(copy.deepcopy(model).eval(), result, check, producer)
    return result.train(model.training)


def _find(model: nn.Module, name: str) -> tuple[nn.Module, int]:
    """The module and the layer in it."""
    path, _, last = name.rpartition(".")
    if last.isdigit() and isinstance(module := model.get_submodule(path), nn.GRU):
        layer = int(last)
    else:
        module = model.get_submodule(name)
        layer = module.num_layers - 1 if isinstance(module, nn.GRU) else 0
    if not isinstance(module, nn.Linear | nn.GRU) or getattr(module, "bidirectional", False):
        raise RecipeError(
            f"{name!r} must be an nn.Linear or a one-directional nn.GRU to be reordered, not "
            f"{type(module).__name__}"
        )
    return module, layer


def _permute_rows(module: nn.Module, layer: int, units: Tensor) -> None:
    if isinstance(module, nn.Linear):
        parameters, blocks = [module.weight, module.bias], 1
    else:
        names = [f"{kind}_{p}_l{layer}" for kind in ("weight", "bias") for p in ("ih", "hh")]
        parameters, blocks = [getattr(module, name, None) for name in names], 3
        recurrent = getattr(module, f"weight_hh_l{layer}")
        recurrent.copy_(recurrent[:, units])
    for parameter in parameters:
        if parameter is not None:
            parameter.copy_(torch.cat([part[units] for part in parameter.chunk(blocks)]))


def _permute_inputs(module: nn.Module, units: Tensor) -> None:
    weight = module.weight_ih_l0 if isinstance(module, nn.GRU) else module.weight
    weight.copy_(weight[:, units])


def _check_equal(before: nn.Module, after: nn.Module, check: Any, name: str) -> None:
    for batch in as_batches(check):
        for old, new in zip(tensors(call(before, batch)), tensors(call(after, batch)), strict=True):
            if (old - new).abs().max() > TOLERANCE * old.abs().max().clamp(min=1e-6):
                raise RecipeError(
                    f"consumers must be all that take the output of {name!r}, its last state "
                    "included: the model's results change with the order of its units"
                )
