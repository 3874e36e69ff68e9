"""Where in the user's code something came from: the last frame outside torch and Espalier."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch
from torch.fx import Node

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<where>\S+)\n\s*(?P<code>.*)'
)
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def is_user_file(path: str) -> bool:
    """Whether `path` is neither torch's, nor Espalier's, nor generated code."""
    return not path.startswith(("<", *_OURS)) and "importlib" not in path


def describe(file: str, line: int | str | None, code: str) -> str:
    return f"{file}:{line}: {code.strip()}"


def of_node(node: Node) -> str:
    """The user's line that made `node`; the module's path where there is none (nn.Sequential)."""
    for match in reversed(list(_FRAME.finditer(node.meta.get("stack_trace") or ""))):
        if is_user_file(match["file"]):
            return describe(match["file"], match["line"], match["code"])
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    if modules and modules[-1][0]:
        return f"module {modules[-1][0]!r}"
    return f"node {node.name!r}"


def of_exception(error: BaseException) -> str:
    """The user's line that was running when `error` was raised, or ''."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_user_file(frame.filename):
            return describe(frame.filename, frame.lineno, frame.line or "")
    return ""
