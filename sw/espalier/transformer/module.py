"""`QuantTransformer`: a transformer that computes with the accelerator's integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..quantized.arithmetic import straight_through
from ..spec.numerics import WEIGHT_LEVELS
from ..tokens import host
from ..tokens.evaluate import evaluate
from ..tokens.graph import TokenGraph
from ..tokens.host import HostInput, HostOutput
from .calibrate import Statistics, observe
from .choices import Options, Plan
from .compute import compute, result
from .correct import corrections
from .float_graph import FloatGraph, Output, Value
from .host import host_input, host_outputs
from .importer import bind, import_tokens
from .inputs import describe
from .lower import FittedScales, Lowering
from .plan import Planner
from .state import pack, unpack

Results = dict[str, list[Tensor]]
"""By output's name, one tensor for each sample."""


class QuantTransformer(nn.Module):
    """What was imported, with the machine's values: forward takes inputs by name.

    Members
    -------
    tokens: the float graph. plan: all scales, once calibrated.
    bits: weight bits (4 or 8) of each linear layer, by its result.
    weights, masks: the parameters, in modules named as in the user's model, and which elements of
        matrices are kept: those that were not 0 when the model was imported.
    example: the arguments, by name, that the model was imported with.

    Its state_dict is whole: weights, masks, bits and scales; `load_state_dict` takes it into any
    import of the same model. `espalier.compression.save_compressed` writes it into a file.
    """

    def __init__(self, tokens: FloatGraph, weight_bits: int | Mapping[str, int] = 8) -> None:
        super().__init__()
        self.tokens = tokens
        self.weights, self.masks = nn.Module(), nn.Module()
        matrices = {linear.weight.parameter for linear in tokens.linears}
        for name, tensor in tokens.parameters.items():
            _place(self.weights, name, nn.Parameter(tensor.detach().clone()))
            if name in matrices and bool((tensor == 0).any()):
                _place(self.masks, name, tensor.detach() != 0)
        self.bits: dict[Value, int] = {}
        for linear in tokens.linears:
            self.set_bits(linear.output, _bits_of(linear.weight.parameter, weight_bits))
        self.plan: Plan | None = None
        self._fitted = FittedScales()
        self._made: tuple[Any, TokenGraph] | None = None
        self.example: dict[str, Any] = {}
        self.register_load_state_dict_pre_hook(_take_masks)

    def get_extra_state(self) -> Tensor:
        """Bits and scales, for state_dict."""
        return pack(self.bits, self.plan)

    def set_extra_state(self, state: Tensor) -> None:
        """Take bits and scales from a state_dict. Raises InputError when they do not fit."""
        self.bits, self.plan = unpack(state, self.tokens)

    def set_bits(self, value: Value, bits: int) -> None:
        """Choose the weight bits of the linear layer that gives `value`."""
        if bits not in WEIGHT_LEVELS:
            raise ValueError(f"weight bits must be one of {tuple(WEIGHT_LEVELS)}, not {bits}")
        self.bits[value] = bits

    @property
    def parameters_by_name(self) -> dict[str, Tensor]:
        """All parameters by name in the user's model, pruned weights 0."""
        masks = dict(self.masks.named_buffers())
        return {
            name: parameter * masks[name] if name in masks else parameter
            for name, parameter in self.weights.named_parameters()
        }

    def calibrate(
        self, samples: Iterable[Mapping[str, Tensor]], options: Options | None = None
    ) -> None:
        """Choose all scales from samples: inputs by name, without batch axis and padding."""
        samples = list(samples)
        with torch.no_grad():
            statistics = observe(self.tokens, samples, self.parameters_by_name)
            self.replan(statistics, options)
            if (options or Options()).correct:
                self.correct(samples, (options or Options()).round)

    @torch.no_grad()
    def correct(self, samples: Sequence[Mapping[str, Tensor]], rounding: bool = True) -> None:
        """Choose the corrections of biases anew, and round weights to the samples, see
        `correct.corrections`."""
        plan, parameters = self._plan(), self.parameters_by_name
        plan.shift = {}
        self._made = None
        found = corrections(
            self.tokens, self.graph(), plan, samples, parameters, self.host_input(), rounding
        )
        plan.shift = found.shift
        for reference, weight in found.weights:
            used = reference.places >= 0
            flat = self.weights.get_parameter(reference.parameter).view(-1)
            flat[reference.places[used]] = weight[used]
        self._made = None

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
        """The integers for the compiler, made again after changes of weights, bits or scales."""
        plan = self._plan()
        state = plan, tuple(p._version for p in self.parameters()), tuple(self.bits.values())
        if self._made is None or self._made[0] != state:
            parameters = {k: v.detach() for k, v in self.parameters_by_name.items()}
            graph = Lowering(self.tokens, parameters, plan, self.bits, self._fitted).run()
            self._made = state, graph
        return self._made[1]

    def host_input(self) -> HostInput:
        """The host's part before the accelerator's."""
        embed = self.tokens.embed
        scale = self._plan().main[embed.output]
        return host_input(self.tokens, self.parameters_by_name, scale)

    def host_outputs(self) -> dict[str, HostOutput]:
        """The host's part after it."""
        return host_outputs(self.tokens, self.parameters_by_name)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Results by name, of inputs in the order of the model's, or by name.

        The values are the machine's, the gradients those of the float graph there.
        """
        given = dict(zip(self.tokens.inputs, args, strict=False)) | kwargs
        arrays = {name: np.asarray(value) for name, value in given.items()}
        before = self.host_input()
        parts = host.samples(before, arrays)
        results = self._on_machine(before, parts)
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            smooth = self._in_floats(parts)
            results = {
                name: [straight_through(a, b) for a, b in zip(each, results[name], strict=True)]
                for name, each in smooth.items()
            }
        return {name: _stack(self.tokens.outputs[name], each) for name, each in results.items()}

    @torch.no_grad()
    def _on_machine(self, before: HostInput, parts: list[dict[str, np.ndarray]]) -> Results:
        graph, after = self.graph(), self.host_outputs()
        results: Results = {name: [] for name in after}
        for sample in parts:
            values = evaluate(graph, host.to_integers(before, host.embed(before, sample)))
            for name, output in after.items():
                tensor = graph.outputs[name]
                real = (values[tensor] * tensor.scale).astype(np.float32)
                results[name].append(torch.from_numpy(host.finish(output, real)))
        return results

    def _in_floats(self, parts: list[dict[str, np.ndarray]]) -> Results:
        parameters = self.parameters_by_name
        results: Results = {name: [] for name in self.tokens.outputs}
        for sample in parts:
            tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
            values = compute(self.tokens, tensors, parameters)
            for name, output in self.tokens.outputs.items():
                results[name].append(result(output, values, parameters))
        return results


def _place(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a parameter or buffer under its dotted name."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(last, tensor)
    else:
        root.register_buffer(last, tensor)


def _take_masks(module: QuantTransformer, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded: the same masks as it has, for whichever matrices those are."""
    module.masks, start = nn.Module(), f"{prefix}masks."
    for name, weight in module.weights.named_parameters():
        if start + name in state:
            _place(module.masks, name, torch.ones_like(weight, dtype=torch.bool))


def _stack(output: Output, results: list[Tensor]) -> Tensor:
    """Samples' results as the model has them; shorter ones end with zeros."""
    batch, tokens = output.axes
    if batch is None:
        return results[0]
    padded = results if output.first else nn.utils.rnn.pad_sequence(results, batch_first=True)
    stacked = padded if isinstance(padded, Tensor) else torch.stack(padded)
    return stacked if output.first else stacked.movedim((0, 1), (batch, tokens))


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
    calibration: sample inputs, each like args (a tensor, a tuple), like kwargs (a dict), or a pair
        (args, kwargs); default: the example itself.
    weight_bits: 4 or 8, or by parameter name ("" for all others).
    options: how ranges are chosen and outliers handled.
    """
    result = QuantTransformer(import_tokens(model, args, kwargs), weight_bits)
    result.example = bind(model, args, kwargs)
    batches = [(args, kwargs)]
    if calibration is not None:
        batches = [_call(batch) for batch in calibration]
    result.calibrate(
        (sample for batch, named in batches for sample in _samples(result, model, batch, named)),
        options,
    )
    return result


def _call(batch: Any) -> tuple[Any, Mapping[str, Any] | None]:
    """(args, kwargs) of a calibration batch."""
    if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], Mapping):
        return batch
    return ((), batch) if isinstance(batch, Mapping) else (batch, None)


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
