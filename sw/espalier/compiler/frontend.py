"""`espalier.compile`: from a PyTorch model to a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .. import Recipe, compress
from ..errors import InputError, UnsupportedModelError
from ..exporting import explain, is_packing
from ..program import Program
from ..quantized import QuantModule
from ..spec.config import DE1_SOC, Config
from ..transformer import QuantTransformer, is_transformer
from . import operators, scales
from .backend import build
from .builder import Builder
from .call import Call, bind, with_axes
from .export import constants, export, input_nodes, output_names
from .importer import Importer
from .ir import Graph
from .labels import Labels
from .lengths import dynamic_sizes, length_guards
from .sequence import time_axes
from .tokens.frontend import compile_tokens

STEPS = (11, 13)
"""Time steps with which a graph is walked; the second where the first shows no fixed length."""
SAMPLES = 3


class WrongTimeAxisError(UnsupportedModelError):
    """GRUs run over another axis than the one taken as time."""


def compile(
    model: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    sequence: Mapping[str, int] | int | None = None,
    max_length: int | None = None,
    config: Config = DE1_SOC,
) -> Program:
    """Compile `model` for the accelerator `config`.

    Parameters
    ----------
    model: a compressed model (`espalier.compress`), in evaluation mode. One with plain nn.Linear or
        nn.GRU modules, or a transformer, is first quantized at density 1 and 8 bits, with `args` as
        calibration.
    args, kwargs: example inputs of the model's forward, a tensor or a tuple; their batch size and
        length do not matter.
    sequence: the time axis by input name, `{"x": 1}`, or of the only input, `1`. Default: the axis
        over which the model's GRUs run. A model without one is run once per sample.
    max_length: the most time steps of a run, where the program has to know; of a transformer the
        longest sequence, by default what model and configuration allow.

    Raises
    ------
    UnsupportedModelError: lists everything that cannot be compiled, with the user's lines.
    InputError: wrong arguments. CapacityError: something does not fit `config`.
    """
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise InputError(f"max_length must be a positive number of time steps, not {max_length!r}")
    if isinstance(model, QuantTransformer) or (
        isinstance(model, nn.Module) and is_transformer(model)
    ):
        if sequence is not None:
            raise InputError("a transformer finds its axes itself; leave out sequence")
        return compile_tokens(model, args, kwargs, max_length=max_length, config=config)
    graph, notes = import_model(model, args, kwargs, sequence=sequence)
    return build(graph, config, {**notes, "max_length": max_length})


def import_model(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    sequence: Mapping[str, int] | int | None = None,
) -> tuple[Graph, dict[str, Any]]:
    """The model's graph and notes on it: all of `compile` but the backend."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, not a {type(model).__name__}")
    if model.training:
        raise UnsupportedModelError("the model is in training mode; call model.eval() first")
    call = bind(model, args, kwargs)
    model, notes = quantized(model, call)
    call = Call(model, call.arguments)
    graph, notes["sequence"] = _import_over(call, time_axes(call, sequence))
    return graph, notes


def _import_over(call: Call, candidates: list[dict[str, int]]) -> tuple[Graph, dict[str, int]]:
    """The graph, and which of the possible time axes the GRUs run over; else the first error."""
    refused = []
    for times in candidates:
        try:
            return import_call(with_axes(call, times)), times
        except (InputError, WrongTimeAxisError) as error:
            refused.append(error)
    raise refused[0]


def quantized(model: nn.Module, call: Call) -> tuple[nn.Module, dict[str, Any]]:
    """The model with quantized layers only, and notes on its compression."""
    plain = [type(module) in (nn.Linear, nn.GRU) for module in model.modules()]
    made_here = any(plain)
    if made_here and any(isinstance(module, QuantModule) for module in model.modules()):
        raise UnsupportedModelError(
            "some layers are compressed and some are not; compress the whole model"
        )
    if made_here:
        model = _compressed(model, call)
    notes: dict[str, Any] = {"quantized_by_compile": made_here}
    report = getattr(model, "espalier_report", None)
    if report is not None:
        notes["density"] = report.density
        notes["requested_density"] = report.requested_density
        notes["pattern"] = report.patterns
    return model, notes


def _compressed(model: nn.Module, call: Call) -> nn.Module:
    recipe = Recipe(density=1, weight_bits=8)
    try:
        return compress(model, recipe, calibration=[call.positional()])
    except InputError as error:
        if is_packing(error):
            raise UnsupportedModelError(explain(error)) from error
        raise


def import_call(call: Call) -> Graph:
    """The graph of a call whose axes are known. Raises UnsupportedModelError with all problems."""
    program, call = export(call)
    dynamic, batch = dynamic_sizes(program, call)
    guards = length_guards(program, call)
    for steps in STEPS if guards or not dynamic else STEPS[:1]:
        builder = Builder(call.model, Labels(batch or SAMPLES, steps))
        importer = Importer(
            builder, input_nodes(program, call), constants(program), output_names(program)
        )
        importer.run(list(program.graph.nodes))
        if importer.problems:
            error = WrongTimeAxisError if importer.wrong_time_axis else UnsupportedModelError
            raise error(_listed(importer.problems))
    if guards or not dynamic:
        message = "the model's code depends on the sequence length"
        places = guards or ["a line that torch.export does not tell"]
        raise UnsupportedModelError(_listed([f"{message}\n    at {line}" for line in places]))
    largest = {name: float(tensor.detach().abs().max()) for name, tensor in call.tensors.items()}
    scales.resolve(builder.graph, largest)
    return builder.graph


def _listed(problems: list[str]) -> str:
    unique = list(dict.fromkeys(problems))
    listed = "\n".join(f"  {problem}" for problem in unique)
    return f"the model cannot be compiled:\n{listed}\nsupported are: {operators.SUPPORTED}"
