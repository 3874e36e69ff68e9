"""Outlier folding: loud channels of a layer's input become loud columns of its weights, for free.

Channel j of the input is divided by a factor where it is made (rows of a linear layer, weights of
a LayerNorm), column j of the weights is multiplied by it. The model computes the same; one 8-bit
range then fits all channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import InputError, RecipeError
from .batches import as_batches, call, tensors

_NAMES = (
    "relu relu_ leaky_relu dropout view reshape flatten unflatten squeeze unsqueeze permute "
    "transpose movedim swapaxes contiguous clone detach select narrow __getitem__ flip"
)
KEEPS_CHANNELS: frozenset[Callable] = frozenset(
    getattr(place, name)
    for name in _NAMES.split()
    for place in (torch, torch.Tensor, functional)
    if hasattr(place, name)
)
"""Functions f with f(x / s) = f(x) / s for factors s > 0 of the last axis, if its size stays."""


class _Flow(TorchFunctionMode):
    """Which module makes the input of each layer, and how large its channels are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.largest: dict[nn.Module, Tensor] = {}
        self.makers: dict[nn.Module, set[nn.Module | None]] = {}
        self._made_by: dict[int, tuple[Tensor, nn.Module]] = {}
        self._hooks = ExitStack()
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.GRU):
                hook = module.register_forward_pre_hook(self._before, with_kwargs=True)
                self._hooks.callback(hook.remove)
            if _can_divide(module):
                self._hooks.callback(module.register_forward_hook(self._after).remove)

    def __torch_function__(
        self,
        func: Callable,
        types: Iterable[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in KEEPS_CHANNELS and isinstance(result, Tensor):
            maker = self._maker(args[0])
            if maker is not None and result.dim() and result.shape[-1] == _channels(maker):
                self._made_by[id(result)] = result, maker
        return result

    def _maker(self, tensor: Any) -> nn.Module | None:
        return self._made_by.get(id(tensor), (tensor, None))[1]

    def _before(self, module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        if not torch.isfinite(x).all():
            raise InputError("calibration data must be finite to fold outliers; there is NaN")
        largest = x.detach().abs().flatten(0, -2).amax(0)
        earlier = self.largest.get(module, largest)
        self.largest[module] = torch.maximum(earlier, largest)
        self.makers.setdefault(module, set()).add(self._maker(x))

    def _after(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._made_by[id(output)] = output, module

    def watch(self, model: nn.Module, batches: Any) -> list[Any]:
        """The model's results of all batches."""
        results = []
        with self._hooks, torch.no_grad():
            for batch in as_batches(batches):
                with self:
                    results.append(tensors(call(model, batch)))
                self._made_by.clear()
        return results


def _can_divide(module: nn.Module) -> bool:
    """Whether a module's results can be divided by factors of their channels."""
    if isinstance(module, nn.LayerNorm):
        return module.elementwise_affine and len(module.normalized_shape) == 1
    return isinstance(module, nn.Linear)


def _channels(maker: nn.Module) -> int:
    return len(maker.weight)


def _columns(layer: nn.Module) -> list[nn.Parameter]:
    """The matrices [M, N] that a layer's input is multiplied by."""
    if isinstance(layer, nn.GRU):
        return [p for name, p in layer.named_parameters() if name.startswith("weight_ih_l0")]
    return [layer.weight]


def factors(largest: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Powers of two [N] near max|x_j|^strength / max|w_j|^(1 - strength); 1 where either is 0.

    largest [N] is max|x_j|, weight [M, N] all that they are multiplied by. Powers of two, so that
    folding changes no bit of any product, at most a factor 1.41 from the source's.

    Source: Xiao et al., SmoothQuant, arXiv 2211.10438, equation 4.
    """
    loud = weight.abs().amax(0)
    exponent = strength * largest.log2() - (1 - strength) * loud.log2()
    usable = (largest > 0) & (loud > 0)
    return torch.where(usable, exponent.nan_to_num(0, 0, 0).round().exp2(), torch.ones_like(loud))


@torch.no_grad()
def _fold(maker: nn.Module, layers: Sequence[nn.Module], scale: Tensor) -> None:
    maker.weight.div_(scale if maker.weight.dim() == 1 else scale[:, None])
    if maker.bias is not None:
        maker.bias.div_(scale)
    for weight in (weight for layer in layers for weight in _columns(layer)):
        weight.mul_(scale)


def fold_outliers(
    model: nn.Module, batches: Any, strength: float = 0.5, layers: Sequence[str] = ()
) -> nn.Module:
    """A copy of `model`, equal in every result on `batches`, with outliers folded into weights.

    strength: 0..1, the share of the difficulty that moves from activations to weights.
    layers: names of the nn.Linear and nn.GRU to fold (* and ? as wildcards), each of which must
        allow it exactly; none: all that do.

    A layer allows it when its input is the result of a linear layer or a LayerNorm, through relu,
    dropout and views at most, that nothing else uses but layers that are folded with it.
    Raises RecipeError naming the layers and reasons.
    """
    if not 0 <= strength <= 1:
        raise RecipeError(f"smoothing must be in 0..1, not {strength!r}")
    model = copy.deepcopy(model)
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    flow = _Flow(model)
    expected = flow.watch(model, batches)
    names = {module: path or "the model" for path, module in model.named_modules()}
    chosen = _choose({names[layer]: layer for layer in flow.makers}, layers)
    reasons: dict[str, str] = {}
    for maker, group in _groups(flow, names, reasons).items():
        if not set(group) & chosen:
            continue
        weight = torch.cat([weight.detach() for layer in group for weight in _columns(layer)])
        largest = torch.stack([flow.largest[layer] for layer in group]).amax(0)
        scale = factors(largest, weight, strength)
        _fold(maker, group, scale)
        if not _same(model, batches, expected):
            _fold(maker, group, 1 / scale)
            reasons |= dict.fromkeys(
                (names[layer] for layer in group),
                f"the result of {names[maker]!r} is used elsewhere, too",
            )
    _complain(chosen, names, reasons, bool(layers))
    for module, was in training:
        module.training = was
    return model


def _choose(layers: Mapping[str, nn.Module], wanted: Sequence[str]) -> set[nn.Module]:
    for name in wanted:
        if not any(fnmatchcase(path, name) for path in layers):
            known = ", ".join(layers)
            raise RecipeError(f"smoothing: {name!r} matches no Linear or GRU; there are: {known}")
    wanted = wanted or ("*",)
    return {m for path, m in layers.items() if any(fnmatchcase(path, name) for name in wanted)}


def _groups(
    flow: _Flow, names: Mapping[nn.Module, str], reasons: dict[str, str]
) -> dict[nn.Module, list[nn.Module]]:
    """Layers by what makes their input; reasons for all that cannot be grouped."""
    groups: dict[nn.Module, list[nn.Module]] = {}
    for layer, makers in flow.makers.items():
        maker = next(iter(makers)) if len(makers) == 1 else None
        if maker is None:
            reasons[names[layer]] = (
                "its input is not the result of one Linear or LayerNorm, through relu, dropout and "
                "views at most"
            )
        else:
            groups.setdefault(maker, []).append(layer)
    return groups


def _same(model: nn.Module, batches: Any, expected: Sequence[Any]) -> bool:
    with torch.no_grad():
        results = [tensors(call(model, batch)) for batch in as_batches(batches)]
    pairs = zip(results, expected, strict=True)
    return all(
        torch.equal(a, b) for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True)
    )


def _complain(
    chosen: set[nn.Module],
    names: Mapping[nn.Module, str],
    reasons: Mapping[str, str],
    strict: bool,
) -> None:
    """Raise RecipeError when a named layer, or every layer, cannot be folded."""
    refused = [names[layer] for layer in chosen if names[layer] in reasons]
    if refused and (strict or len(refused) == len(chosen)):
        which = "; ".join(f"{name}: {reasons[name]}" for name in sorted(refused))
        raise RecipeError(f"outliers can only be folded where nothing changes ({which})")
