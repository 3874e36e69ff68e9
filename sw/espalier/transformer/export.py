"""torch.export of a transformer with dynamic samples and tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from ..errors import UnsupportedModelError
from ..exporting import explain, quiet
from .inputs import Inputs


def export(model: nn.Module, arguments: dict[str, Any], inputs: Inputs) -> ExportedProgram:
    """The graph of the model's call. Raises UnsupportedModelError, with the user's line."""
    enlarged = {
        name: _enlarged(value, name, inputs) if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }
    shapes = {
        name: {axis: Dim.AUTO for axis in _dynamic(name, inputs)}
        if isinstance(value, Tensor)
        else pytree.tree_map(lambda _: None, value)
        for name, value in arguments.items()
    }
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with quiet(), torch.no_grad():
            return torch.export.export(model, (), enlarged, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises whatever the model and torch raise
        raise UnsupportedModelError(explain(error)) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _dynamic(name: str, inputs: Inputs) -> tuple[int, ...]:
    if name in inputs.static:
        return 0, 1
    return tuple(axis for axis in inputs.axes[name] if axis is not None)


def _enlarged(tensor: Tensor, name: str, inputs: Inputs) -> Tensor:
    """At least two samples of two tokens: torch.export takes sizes of 1 as fixed."""
    for axis in _dynamic(name, inputs):
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor] * 2, dim=axis)
    return tensor


def output_names(program: ExportedProgram | pytree.TreeSpec) -> list[str]:
    """`output` for a single tensor; `output_0`, ... for a tuple; the keys of a dict."""
    specification = program if isinstance(program, pytree.TreeSpec) else program.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(specification.num_leaves)), specification)
    if isinstance(tree, int):
        return ["output"]
    names = {}
    for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
        keys = "_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        names[leaf] = f"output_{keys}" if keys[0].isdigit() else keys
    return [names[i] for i in range(len(names))]
