"""`espalier.compile`: from a PyTorch model to a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import InputError, UnsupportedModelError
from ..program import Program
from ..quantized import QuantModule
from ..spec.config import DE1_SOC, Config
from . import operators, scales
from .export import (
    Call,
    bind,
    constants,
    dynamic_sizes,
    export,
    input_nodes,
    length_guards,
    output_names,
    with_axes,
)
from .importer import Importer
from .ir import Graph
from .labels import Labels
from .sequence import time_axes

STEPS = (11, 13)
"""Time steps with which a graph is walked: the second only when the first shows no line for a fixed length."""
SAMPLES = 3


def compile(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    sequence: Mapping[str, int] | int | None = None,
    max_length: int | None = None,
    config: Config = DE1_SOC,
) -> Program:
    """Compile `model` for the accelerator `config`.

    Parameters
    ----------
    model: a compressed model (`espalier.compress`), in evaluation mode. One with plain nn.Linear or nn.GRU modules is
        first quantized at density 1 and 8 bits, with `args` as calibration.
    args, kwargs: example inputs of the model's forward: a tensor or a tuple. Their batch size and length do not matter.
    sequence: the time axis by input name, `{"x": 1}`, or of the only input, `1`. Default: the axis over which the
        model's GRUs run. A model without one is run once per sample.
    max_length: the most time steps of a run, where the program has to know.

    Raises
    ------
    UnsupportedModelError: lists everything that cannot be compiled, with the user's lines.
    InputError: wrong arguments. CapacityError: something does not fit `config`.
    """
    from .backend import build

    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise InputError(f"max_length must be a positive number of time steps, not {max_length!r}")
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
    notes: dict[str, Any] = {}
    model, notes["quantized_by_compile"] = quantized(model, call)
    call = Call(model, call.arguments)
    times = time_axes(call, sequence)
    notes["sequence"] = times
    call = with_axes(call, times)
    return import_call(call), notes


def quantized(model: nn.Module, call: Call) -> tuple[nn.Module, bool]:
    """The model with quantized layers only, and whether this function made it so."""
    if not any(isinstance(module, nn.Linear | nn.GRU) for module in model.modules()):
        return model, False
    if any(isinstance(module, QuantModule) for module in model.modules()):
        raise UnsupportedModelError(
            "some layers are compressed and some are not; compress the whole model"
        )
    from .. import Recipe, compress

    return compress(model, Recipe(density=1, weight_bits=8), calibration=[call.arguments]), True


def import_call(call: Call) -> Graph:
    """The graph of a call whose axes are known. Raises UnsupportedModelError with all problems."""
    program, call = export(call)
    dynamic, batch = dynamic_sizes(program, call)
    for steps in STEPS:
        labels = Labels(batch or SAMPLES, steps)
        importer = Importer(call.model, labels, constants(program))
        importer.run(list(program.graph.nodes), input_nodes(program, call), output_names(program))
        if importer.problems:
            raise _unsupported(importer.problems)
        if dynamic and not (lines := length_guards(program, call)):
            break
    else:
        message = "the model's code depends on the sequence length"
        raise _unsupported([f"{message}\n    at {line}" for line in lines or ["an unknown line"]])
    largest = {name: float(tensor.detach().abs().max()) for name, tensor in call.tensors.items()}
    scales.resolve(importer.graph, largest)
    return importer.graph


def _unsupported(problems: list[str]) -> UnsupportedModelError:
    unique = list(dict.fromkeys(problems))
    listed = "\n".join(f"  {problem}" for problem in unique)
    return UnsupportedModelError(
        f"the model cannot be compiled:\n{listed}\nsupported are: {operators.SUPPORTED}"
    )
