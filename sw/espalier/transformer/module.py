"""`QuantTransformer`: a transformer that computes with the accelerator's integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..spec.numerics import WEIGHT_LEVELS
from ..tokens import host
from ..tokens.evaluate import evaluate
from ..tokens.graph import TokenGraph
from ..tokens.host import HostInput, HostOutput
from .calibrate import Statistics, observe
from .float_graph import FloatGraph, Value
from .host import host_input, host_outputs
from .importer import bind, import_tokens
from .inputs import describe
from .lower import FittedScales, Lowering
from .plan import Options, Plan, Planner


class QuantTransformer(nn.Module):
    """What was imported, with the machine's values: forward takes inputs by name.

    Members
    -------
    tokens: the float graph. plan: all scales, once calibrated.
    bits: weight bits (4 or 8) of each linear layer, by its result.
    weights: the parameters, in modules named as in the user's model.
    """

    def __init__(self, tokens: FloatGraph, weight_bits: int | Mapping[str, int] = 8) -> None:
        super().__init__()
        self.tokens = tokens
        self.weights = nn.Module()
        for name, tensor in tokens.parameters.items():
            *path, last = name.split(".")
            place = self.weights
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_parameter(last, nn.Parameter(tensor.detach().clone()))
        self.bits: dict[Value, int] = {}
        for linear in tokens.linears:
            self.set_bits(linear.output, _bits_of(linear.weight.parameter, weight_bits))
        self.plan: Plan | None = None
        self._fitted = FittedScales()

    def set_bits(self, value: Value, bits: int) -> None:
        """Choose the weight bits of the linear layer that gives `value`."""
        if bits not in WEIGHT_LEVELS:
            raise ValueError(f"weight bits must be one of {tuple(WEIGHT_LEVELS)}, not {bits}")
        self.bits[value] = bits

    @property
    def parameters_by_name(self) -> dict[str, Tensor]:
        return {name: self.weights.get_parameter(name) for name in self.tokens.parameters}

    def calibrate(
        self, samples: Iterable[Mapping[str, Tensor]], options: Options | None = None
    ) -> None:
        """Choose all scales from samples: inputs by name, without batch axis and padding."""
        with torch.no_grad():
            statistics = observe(self.tokens, samples, self.parameters_by_name)
            self.replan(statistics, options)

    def replan(self, statistics: Statistics, options: Options | None = None) -> None:
        """Choose all scales from what was observed."""
        parameters, options = self.parameters_by_name, options or Options()
        self.plan = Planner(self.tokens, statistics, parameters, self.bits, options).run()

    def _plan(self) -> Plan:
        if self.plan is None:
            raise InputError(
                "the transformer has no scales yet: call calibrate, or quantize with calibration="
            )
        return self.plan

    def graph(self) -> TokenGraph:
        """The integers for the compiler."""
        parameters = {k: v.detach() for k, v in self.parameters_by_name.items()}
        return Lowering(self.tokens, parameters, self._plan(), self.bits, self._fitted).run()

    def host_input(self) -> HostInput:
        """The host's part before the accelerator's."""
        embed = self.tokens.embed
        scale = self._plan().main[embed.output]
        return host_input(self.tokens, self.parameters_by_name, scale)

    def host_outputs(self) -> dict[str, HostOutput]:
        """The host's part after it."""
        return host_outputs(self.tokens, self.parameters_by_name)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Results by name, of inputs in the order of the model's, or by name."""
        given = dict(zip(self.tokens.inputs, args, strict=False)) | kwargs
        arrays = {name: np.asarray(value) for name, value in given.items()}
        graph, before, after = self.graph(), self.host_input(), self.host_outputs()
        results: dict[str, list[np.ndarray]] = {name: [] for name in after}
        for sample in host.samples(before, arrays):
            tokens = host.to_integers(before, host.embed(before, sample))
            values = evaluate(graph, tokens)
            for name, output in after.items():
                tensor = graph.outputs[name]
                real = (values[tensor] * tensor.scale).astype(np.float32)
                results[name].append(host.finish(output, real))
        return {
            name: torch.from_numpy(host.stack(after[name], each)) for name, each in results.items()
        }


def _bits_of(name: str, weight_bits: int | Mapping[str, int]) -> int:
    if isinstance(weight_bits, Mapping):
        return weight_bits.get(name, weight_bits.get("", 8))
    return weight_bits


def quantize(
    model: nn.Module,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    calibration: Sequence[Any] | None = None,
    weight_bits: int | Mapping[str, int] = 8,
    options: Options | None = None,
) -> QuantTransformer:
    """An unmodified transformer in evaluation mode, with the accelerator's integers.

    Arguments
    ---------
    args, kwargs: example inputs, see `import_tokens`.
    calibration: sample inputs, each like args (a tensor, a tuple) or kwargs (a dict); default: the
        example itself.
    weight_bits: 4 or 8, or by parameter name ("" for all others).
    options: how ranges are chosen and outliers handled.
    """
    result = QuantTransformer(import_tokens(model, args, kwargs), weight_bits)
    batches = (
        [(args, kwargs)]
        if calibration is None
        else [((), batch) if isinstance(batch, Mapping) else (batch, None) for batch in calibration]
    )
    result.calibrate(
        (sample for batch, named in batches for sample in _samples(result, model, batch, named)),
        options,
    )
    return result


def _samples(
    result: QuantTransformer, model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None
) -> Iterable[dict[str, Tensor]]:
    arguments = bind(model, args, kwargs)
    tokens = result.tokens
    inputs = next(
        each
        for each in describe(arguments)
        if all(tokens.axes[n] == a for n, a in each.axes.items() if n in tokens.axes)
    )
    return inputs.split(
        arguments, tokens.mask if tokens.mask and tokens.mask.name in arguments else None
    )
