"""A compiled program: what the accelerator runs and what the host must know of it, in one checked
file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import ProgramError
from .spec import checks, isa
from .spec.config import BEAT_BYTES, Config
from .spec.interface import ENTRIES, Layer, Port, Scratch
from .spec.tokens import TokenPlan
from .tokens.host_file import Host, pack, unpack

FORMAT = "espalier-program"
MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Instructions, weights and tables as the DDR image they are, with ports and layers beside
    them.

    `image` is uint8 of a multiple of 16 bytes and lies at window offset 0; the first `instructions`
    beats of it are the
    program. `entries` maps `setup`, `reset`, `run` to instruction addresses. `whole_sequence` says
    that a sequence cannot be cut
    (bidirectional models). Raises ProgramError when anything is inconsistent or out of range.
    """

    config: Config
    image: np.ndarray
    instructions: int
    entries: Mapping[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    scratch: tuple[Scratch, ...] = ()
    layers: tuple[Layer, ...] = ()
    whole_sequence: bool = False
    tokens: TokenPlan | None = None
    """Buffers of a transformer's program, which runs over tokens."""
    host: Host | None = None
    """What the host does before and after it: embedding, pooling."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What `inspect` shows beside: recipe, densities, residency. JSON values only."""

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 1 or len(image) % BEAT_BYTES:
            raise ProgramError(
                f"the image must be bytes of a multiple of {BEAT_BYTES}, "
                f"not {image.dtype} {image.shape}"
            )
        if not 1 <= self.instructions <= min(self.config.program_depth, len(image) // BEAT_BYTES):
            raise ProgramError(
                f"a program must have 1..{self.config.program_depth} instructions in its image, "
                f"not {self.instructions}"
            )
        if set(self.entries) != set(ENTRIES):
            raise ProgramError(
                f"a program must have the entries {ENTRIES}, not {tuple(self.entries)}"
            )
        for name, pc in self.entries.items():
            if not 0 <= pc < self.instructions:
                raise ProgramError(f"entry {name!r} must be below {self.instructions}, not {pc}")
        names = [port.name for port in (*self.inputs, *self.outputs)]
        if len(set(names)) < len(names):
            raise ProgramError(f"port names must differ: {names}")
        for pc, instruction in enumerate(self.decode()):
            try:
                checks.check(instruction, self.config)
            except ValueError as error:
                raise ProgramError(f"instruction {pc}: {error}") from error

    def decode(self) -> list[isa.Instruction]:
        """All instructions. Raises ProgramError naming the address of an illegal one."""
        result = []
        for pc in range(self.instructions):
            word = int.from_bytes(
                self.image[pc * BEAT_BYTES : (pc + 1) * BEAT_BYTES].tobytes(), "little"
            )
            try:
                result.append(isa.decode(word))
            except ValueError as error:
                raise ProgramError(f"instruction {pc} is illegal: {error}") from error
        return result

    def save(self, path: str | Path) -> Path:
        """Write the program as one safetensors file and return its path."""
        path = Path(path)
        host, arrays = (None, {}) if self.host is None else pack(self.host)
        path.write_bytes(
            save({"image": self.image, **arrays}, metadata=self._metadata(host, arrays))
        )
        return path

    def _metadata(self, host: Any, arrays: dict[str, np.ndarray]) -> dict[str, str]:
        body = {
            "host": host,
            "config": asdict(self.config),
            "instructions": self.instructions,
            "entries": dict(self.entries),
            "inputs": [port.to_json() for port in self.inputs],
            "outputs": [port.to_json() for port in self.outputs],
            "scratch": [asdict(scratch) for scratch in self.scratch],
            "layers": [asdict(layer) for layer in self.layers],
            "whole_sequence": self.whole_sequence,
            "tokens": None if self.tokens is None else asdict(self.tokens),
            "notes": dict(self.notes),
        }
        text = json.dumps(body, sort_keys=True)
        return {
            "format": FORMAT,
            "version": str(isa.VERSION),
            "program": text,
            "checksum": _checksum(text, self.image, arrays),
        }

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read a program; nothing in the file is executed. Raises ProgramError when it is not whole
        and unaltered."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ProgramError(f"{path}: a program file must be below {MAX_FILE_BYTES} bytes")
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                image = arrays.pop("image", None)
        except (OSError, SafetensorError, ValueError) as error:
            raise ProgramError(
                f"{path}: cannot be read as a program ({error}); compile it again"
            ) from error
        if metadata.get("format") != FORMAT or image is None:
            raise ProgramError(f"{path}: is not an Espalier program")
        if metadata.get("version") != str(isa.VERSION):
            raise ProgramError(
                f"{path}: has version {metadata.get('version')}, not {isa.VERSION}; "
                "compile it again"
            )
        text = metadata.get("program", "")
        if metadata.get("checksum") != _checksum(text, image, arrays):
            raise ProgramError(
                f"{path}: the checksum does not match, the file was altered or damaged; "
                "compile it again"
            )
        return _from_json(text, image, arrays, path)


def _checksum(text: str, image: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode() + b"\0" + image.tobytes())
    for name in sorted(arrays):
        digest.update(b"\0" + name.encode() + b"\0" + arrays[name].tobytes())
    return digest.hexdigest()


def _from_json(text: str, image: np.ndarray, arrays: dict[str, np.ndarray], path: Path) -> Program:
    try:
        body = json.loads(text)
        return Program(
            config=Config(**body["config"]),
            image=image,
            instructions=int(body["instructions"]),
            entries={str(name): int(pc) for name, pc in body["entries"].items()},
            inputs=tuple(Port.from_json(port) for port in body["inputs"]),
            outputs=tuple(Port.from_json(port) for port in body["outputs"]),
            scratch=tuple(Scratch(**scratch) for scratch in body["scratch"]),
            layers=tuple(Layer(**layer) for layer in body["layers"]),
            whole_sequence=bool(body["whole_sequence"]),
            tokens=None if body["tokens"] is None else TokenPlan(**body["tokens"]),
            host=None if body["host"] is None else unpack(body["host"], arrays),
            notes=body["notes"],
        )
    except ProgramError as error:
        raise ProgramError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProgramError(
            f"{path}: the description is malformed ({error}); compile it again"
        ) from error
