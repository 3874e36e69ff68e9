"""Where built things are kept, and how two processes make the same one without a clash."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console


def folder() -> Path:
    """The user's cache folder for Espalier: $ESPALIER_CACHE, else $XDG_CACHE_HOME/espalier."""
    if chosen := os.environ.get("ESPALIER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "espalier"


def key(*parts: str | bytes) -> str:
    """16 hex digits that name the content `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def made(target: Path, make: Callable[[Path], None], what: str = "") -> Path:
    """The folder `target`, filled by `make(empty folder)` when it is not there yet.

    A folder appears under its name only when it is complete: it is filled beside it and renamed.
    Of two processes that want the same one, the second waits for the first. `what` is shown on
    stderr while it is made. Returns `target`.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock, _shown(what, target.parent):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _fill(target, make)
    return target


def _shown(what: str, where: Path) -> AbstractContextManager[object]:
    """A spinner in a terminal, else one line."""
    if not what:
        return nullcontext()
    console = Console(stderr=True)
    text = f"building {what} (once; kept in {where})"
    if not console.is_terminal:
        console.print(text, soft_wrap=True)
    return console.status(text)


def _fill(target: Path, make: Callable[[Path], None]) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        make(work)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
