"""Which axis of which input is time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch.fx import Node

from ..errors import InputError
from .builder import InputSpec
from .call import Call
from .export import export, input_nodes
from .importer import operator_name


def time_axes(call: Call, sequence: Mapping[str, int] | int | None) -> list[dict[str, int]]:
    """The time axis of each input that has one, from `compile`'s `sequence` or the model's GRUs.

    Several answers are in order of likelihood: the GRUs decide when they are imported. Raises
    InputError when `sequence` does not fit the inputs.
    """
    if sequence is None:
        return _candidates(call)
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
    return [axes]


def _candidates(call: Call) -> list[dict[str, int]]:
    """Time axes of the inputs that GRUs read: first the axis that the first GRU runs over.

    Of inputs that differ in their number of axes, those with fewer have no time.
    """
    specs = (
        InputSpec(name, tuple(tensor.shape), None, None) for name, tensor in call.tensors.items()
    )
    program, fixed = export(replace(call, specs=tuple(specs)))
    inputs = input_nodes(program, fixed)
    grus = [node for node in program.graph.nodes if operator_name(node.target) == "espalier.gru"]
    reaching = [node for gru in grus for node in _reaching(gru.args[0])]
    read = [inputs[node.name] for node in reaching if node.name in inputs]
    if not read:
        return [{}]
    batched = grus[0].args[0].meta["val"].ndim == 3
    likely = int(batched and grus[0].args[6])
    ndim = max(len(spec.shape) for spec in read)
    timed = [spec.name for spec in read if len(spec.shape) == ndim]
    return [dict.fromkeys(timed, axis) for axis in sorted(range(ndim), key=lambda a: a != likely)]


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
