"""What torch.export says, made useful: its dumps kept away, its failures about the user's code."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from . import source

PACKING = (
    "packed sequences are not supported: give the GRU the padded tensor, and pass lengths= "
    "when the program runs"
)


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
