"""Which axis of which input is time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch.fx import Node

from ..errors import InputError, UnsupportedModelError
from . import source
from .builder import InputSpec
from .export import Call, export, input_nodes
from .importer import operator_name


def time_axes(call: Call, sequence: Mapping[str, int] | int | None) -> dict[str, int]:
    """The time axis of each input that has one, from `compile`'s `sequence` or the model's GRUs.

    Raises InputError when `sequence` does not fit the inputs, UnsupportedModelError when there is
    no clear default.
    """
    if sequence is None:
        return _default(call)
    tensors = call.tensors
    if isinstance(sequence, int):
        if len(tensors) != 1:
            raise InputError(
                f"sequence must name the inputs that have time: {{name: axis}} of {sorted(tensors)}"
            )
        sequence = {next(iter(tensors)): sequence}
    axes = {}
    for name, axis in sequence.items():
        if name not in tensors:
            raise InputError(
                f"sequence names {name!r}, but the example inputs are {sorted(tensors)}"
            )
        ndim = tensors[name].ndim
        if not isinstance(axis, int) or not -ndim <= axis < ndim:
            raise InputError(
                f"sequence: the time axis of {name!r} must be in 0..{ndim - 1}, not {axis!r}"
            )
        axes[name] = axis % ndim
    return axes


def _default(call: Call) -> dict[str, int]:
    """The axes over which GRUs read the model's inputs; none without a GRU."""
    specs = (
        InputSpec(name, tuple(tensor.shape), None, None) for name, tensor in call.tensors.items()
    )
    program, fixed = export(replace(call, specs=tuple(specs)))
    inputs = input_nodes(program, fixed)
    axes: dict[str, int] = {}
    for node in program.graph.nodes:
        if operator_name(node.target) != "espalier.gru":
            continue
        ndim = node.args[0].meta["val"].ndim
        axis = int(node.args[6] and ndim == 3)
        for placeholder in _reaching(node.args[0]):
            spec = inputs.get(placeholder.name)
            if spec is None:
                continue
            if len(spec.shape) != ndim or axes.setdefault(spec.name, axis) != axis:
                raise UnsupportedModelError(
                    f"it is not clear which axis of input {spec.name!r} is time; say it with "
                    f"sequence={{{spec.name!r}: axis}}\n    at {source.of_node(node)}"
                )
    return axes


def _reaching(node: Node) -> list[Node]:
    """Placeholders from which data reaches `node`, other GRUs not passed."""
    found, pending, seen = [], [node], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "placeholder":
            found.append(current)
        elif operator_name(current.target) != "espalier.gru":
            pending.extend(current.all_input_nodes)
    return found
