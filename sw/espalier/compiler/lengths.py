"""Whether an exported graph holds for every length of sequence, and the lines where it does not."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch._dynamo.source import TensorPropertySource
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram

from .. import source
from .call import Call
from .export import input_nodes


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
