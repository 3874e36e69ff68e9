"""torch.export with dynamic batch and time; failures become messages about the user's code."""

from __future__ import annotations

import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch._dynamo.source import TensorPropertySource
from torch._subclasses import FakeTensor
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from ..errors import InputError, UnsupportedModelError
from ..quantized import QuantModule
from . import source
from .builder import InputSpec

PACKING = (
    "packed sequences are not supported: give the GRU the padded tensor, and pass lengths= "
    "when the program runs"
)


@dataclass(frozen=True)
class Call:
    """The model's example call: arguments by name, and the batch and time axes of its tensors."""

    model: nn.Module
    arguments: dict[str, Any]
    specs: tuple[InputSpec, ...] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}

    def positional(self) -> tuple[Any, ...]:
        """All arguments by position, with defaults. Raises InputError where one has none."""
        bound = inspect.signature(self.model.forward).bind(**self.arguments)
        bound.apply_defaults()
        if bound.kwargs:
            raise InputError(
                f"forward's keyword-only parameters {sorted(bound.kwargs)} cannot be calibrated "
                "here; compress the model first (espalier.compress)"
            )
        return bound.args


def bind(model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None) -> Call:
    """The example arguments by the names of `model.forward`. Raises InputError."""
    args = args if isinstance(args, tuple | list) else (args,)
    try:
        bound = inspect.signature(model.forward).bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise InputError(f"args do not fit the model's forward: {error}") from error
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise InputError(
                f"forward's parameter {name!r} must be an ordinary one that has a name"
            )
        arguments.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    for name, value in arguments.items():
        _check(name, value)
    if not any(isinstance(value, Tensor) for value in arguments.values()):
        raise InputError("args must have at least one tensor: an example input of the model")
    return Call(model, arguments)


def _check(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if not value.dtype.is_floating_point or value.ndim == 0 or value.numel() == 0:
            shape = tuple(value.shape)
            raise InputError(
                f"example input {name!r} must be a non-empty float tensor, not {value.dtype} "
                f"of {shape}"
            )
    elif any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
        raise InputError(
            f"example input {name!r} must be a tensor, not a {type(value).__name__} of tensors"
        )


def with_axes(call: Call, times: Mapping[str, int]) -> Call:
    """The call with the batch axis of every tensor, given the time axes by input name.

    The batch axis of an input with time is the leading one that remains, but [T, features] has
    none; that of another input is its first, or the middle one of a state [layers, B, H].
    """
    specs = []
    for name, tensor in call.tensors.items():
        time = times.get(name)
        batch = _batch_axis(tensor.ndim, time, call, times)
        specs.append(InputSpec(name, tuple(tensor.shape), batch, time))
    sizes = {
        spec.name: spec.shape[spec.batch_axis] for spec in specs if spec.batch_axis is not None
    }
    if len(set(sizes.values())) > 1:
        raise InputError(f"the example inputs must have one batch size, not {sizes}")
    steps = {spec.name: spec.shape[spec.time_axis] for spec in specs if spec.time_axis is not None}
    if len(set(steps.values())) > 1:
        raise InputError(f"the example inputs must have one number of time steps, not {steps}")
    return replace(call, specs=tuple(specs))


def _batch_axis(ndim: int, time: int | None, call: Call, times: Mapping[str, int]) -> int | None:
    if time is not None:
        return None if ndim == 1 or (ndim == 2 and time == 0) else int(time == 0)
    if times and all(
        _batch_axis(call.tensors[name].ndim, axis, call, {}) is None for name, axis in times.items()
    ):
        return None
    if ndim == 1:
        return None
    return 1 if times and ndim == 3 else 0


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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch.export's own warnings and dumps away: failures are explained by `explain`."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def is_packing(error: Exception) -> bool:
    """Whether a model failed for its use of packed sequences."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return "PackedSequence" in str(error) or any(file.endswith("nn/utils/rnn.py") for file in files)


def explain(error: Exception) -> str:
    """What is wrong with the model whose call or export raised `error`."""
    line = source.of_exception(error)
    place = f"\n    at {line}" if line else ""
    text = str(error)
    if is_packing(error):
        return f"the model cannot be compiled: {PACKING}{place}"
    if "GuardOnDataDependent" in type(error).__name__ or "data-dependent" in text:
        reason = "its code depends on the inputs' values (if, while, int())"
        return f"the model cannot be compiled: {reason}{place}"
    reason = text.strip().split("\n")[0]
    return f"the model cannot be exported ({type(error).__name__}: {reason}){place}"


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


def dynamic_sizes(program: ExportedProgram, call: Call) -> tuple[bool, int | None]:
    """(whether time stayed dynamic, the batch size if it did not)."""
    inputs = input_nodes(program, call)
    dynamic, batch = True, None
    for node in program.graph.nodes:
        spec = inputs.get(node.name) if node.op == "placeholder" else None
        shape = node.meta["val"].shape if spec is not None else ()
        if spec is not None and spec.time_axis is not None:
            dynamic &= _fixed(shape[spec.time_axis]) is None
        if spec is not None and spec.batch_axis is not None:
            batch = batch or _fixed(shape[spec.batch_axis])
    return dynamic, batch


def _fixed(size: int | torch.SymInt) -> int | None:
    """A size of an exported tensor as a number, None when it is dynamic."""
    expression = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
    return int(expression) if expression.is_number else None


def length_guards(program: ExportedProgram, call: Call) -> list[str]:
    """The user's lines (or torch's, where unknown) at which the model asked for certain lengths."""
    environment, symbols = _length_symbols(program, call)
    lines = []
    for guard in environment.guards if environment is not None else ():
        fixed = guard.expr.free_symbols & symbols
        rest = {k: v for k, v in environment.replacements.items() if k not in symbols}
        if fixed and not _always(guard.expr.xreplace(rest), symbols):
            lines.append(_guard_line(guard))
    return list(dict.fromkeys(lines))


def _length_symbols(program: ExportedProgram, call: Call) -> tuple[Any, set]:
    """torch's environment of symbolic sizes, and its symbols for the inputs' time axes."""
    timed = {spec.name: spec.time_axis for spec in call.specs if spec.time_axis is not None}
    values = (node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder")
    modes = (value.fake_mode for value in values if isinstance(value, FakeTensor))
    environment = next(modes).shape_env
    if environment is None:
        return None, set()
    return environment, {
        symbol
        for symbol, sources in environment.var_to_sources.items()
        for origin in sources
        if isinstance(origin, TensorPropertySource)
        and timed.get(getattr(origin.base, "local_name", "")) == origin.idx
    }


def _always(expression: sympy.Basic, symbols: set) -> bool:
    """Whether a condition holds for short and long sequences alike."""
    rest = {symbol: sympy.Integer(2) for symbol in expression.free_symbols - symbols}
    lengths = (2, 3, 4, 5, 7, 16, 255, 1 << 12, (1 << 20) + 1)
    return all(
        expression.xreplace({**rest, **{symbol: sympy.Integer(n) for symbol in symbols}})
        == sympy.true
        for n in lengths
    )


def _guard_line(guard: Any) -> str:
    frame = guard.sloc.framework_loc
    if guard.sloc.maybe_user_loc:
        return str(guard.sloc.maybe_user_loc)
    if frame is not None and not isinstance(frame, str) and source.is_user_file(frame.filename):
        return source.describe(frame.filename, frame.lineno, frame.line or "")
    return f"(inside torch) {guard.expr}"


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
