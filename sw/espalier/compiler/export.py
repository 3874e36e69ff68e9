"""torch.export with dynamic batch and time; failures become messages about the user's code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from ..errors import UnsupportedModelError
from ..exporting import explain, quiet
from ..quantized import QuantModule
from .builder import InputSpec
from .call import Call


@contextmanager
def paths(model: nn.Module) -> Iterator[None]:
    """Quantized modules know their paths inside `model` while this is active."""
    before = [
        (module, module.path) for module in model.modules() if isinstance(module, QuantModule)
    ]
    try:
        for name, module in model.named_modules():
            if isinstance(module, QuantModule):
                module.path = name
        yield
    finally:
        for module, path in before:
            module.path = path


def export(call: Call) -> tuple[ExportedProgram, Call]:
    """The graph with dynamic batch and time, and the call that it belongs to.

    A model that only works for the example's batch of one is exported as one without a batch.
    """
    single = any(
        spec.batch_axis is not None and spec.shape[spec.batch_axis] == 1 for spec in call.specs
    )
    try:
        return _export(_enlarged(call)), call
    except UnsupportedModelError:
        if not single:
            raise
        alone = replace(call, specs=tuple(replace(spec, batch_axis=None) for spec in call.specs))
        return _export(_enlarged(alone)), alone


def _enlarged(call: Call) -> Call:
    """The call with at least two samples and two steps: torch.export takes sizes of 1 as fixed."""
    arguments = dict(call.arguments)
    for spec in call.specs:
        for axis in (spec.batch_axis, spec.time_axis):
            if axis is not None and spec.shape[axis] == 1:
                arguments[spec.name] = torch.cat([arguments[spec.name]] * 2, dim=axis)
    return replace(call, arguments=arguments)


def _export(call: Call) -> ExportedProgram:
    shapes = {name: pytree.tree_map(lambda _: None, a) for name, a in call.arguments.items()}
    for spec in call.specs:
        axes = (spec.batch_axis, spec.time_axis)
        shapes[spec.name] = {axis: Dim.AUTO for axis in axes if axis is not None}
    try:
        with quiet(), paths(call.model), torch.no_grad():
            return torch.export.export(
                call.model, (), call.arguments, dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # torch.export raises whatever the model and torch raise
        raise UnsupportedModelError(explain(error)) from error


def input_nodes(program: ExportedProgram, call: Call) -> dict[str, InputSpec]:
    """Placeholder names of the graph with the user inputs that they are."""
    names = list(call.arguments)
    specs = {spec.name: spec for spec in call.specs}
    placeholders = program.graph_signature.user_inputs
    leaves = [name for name in names for _ in pytree.tree_leaves(call.arguments[name])]
    return {
        str(placeholder): specs[name]
        for placeholder, name in zip(placeholders, leaves, strict=True)
        if name in specs
    }


def constants(program: ExportedProgram) -> dict[str, Tensor]:
    """The tensors that the model's code holds (index lists), by placeholder name."""
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants
    return {str(name): program.constants[target] for name, target in lifted.items()}


def output_names(program: ExportedProgram) -> list[str]:
    """`output` for a single tensor; `output_0`, ... for a tuple; the keys of a dict."""
    specification = program.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(specification.num_leaves)), specification)
    if isinstance(tree, int):
        return ["output"]
    names = {}
    for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
        keys = "_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        names[leaf] = f"output_{keys}" if keys[0].isdigit() else keys
    return [names[i] for i in range(len(names))]
