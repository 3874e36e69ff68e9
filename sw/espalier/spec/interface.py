"""What a program tells the host: its inputs, outputs, state and the closed list of host operators.

A *tensor* of the user's model is [batch, time, features] or a permutation of it; the machine sees
one sample at a time and one step at a time. `Port` says how one step's features lie in DDR, and
which host operators turn floats into that and back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from .config import BEAT_BYTES, Config
from .isa import REGISTERS


class Kind(StrEnum):
    """How a port's elements lie in DDR, and with that their host operator (the closed list)."""

    COLUMNS = "columns"
    """Input quantized to int8 column inputs: groups of `Config.group`, 8 bytes each."""
    VALUES = "values"
    """int16 vector elements: quantized on the way in, dequantized on the way out."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of a program.

    Parameters
    ----------
    name: the user's name for it (`x`, `output`, `h0` ...).
    kind: layout in DDR.
    scale: real value of one integer unit.
    shape: the model's shape with -1 for batch and time, for messages and checks.
    batch_axis, time_axis: axes of `shape`; None when the tensor has none. A port with a time axis
        is read or written every step,
        one without once a run (initial state before the first step, last output after the last).
    positions: for every feature, in C order of the remaining axes, the element of the DDR layout
        that holds it.
    elements: elements in the DDR layout of one step.
    register: the sequencer register that takes the DDR address of the first step.
    reverse_register: the register that takes the address of the last step (bidirectional models),
        or None.
    stride_bytes: distance of two steps in DDR.
    optional: an input that may be absent, with zeros instead (initial state).
    """

    name: str
    kind: Kind
    scale: float
    shape: tuple[int, ...]
    batch_axis: int | None
    time_axis: int | None
    positions: tuple[int, ...]
    elements: int
    register: int
    stride_bytes: int
    reverse_register: int | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        def require(holds: bool, rule: str) -> None:
            if not holds:
                raise ValueError(f"port {self.name!r}: {rule}")

        require(
            self.kind in list(Kind),
            f"kind must be one of {[k.value for k in Kind]}, not {self.kind!r}",
        )
        require(
            self.scale > 0 and self.scale < float("inf"),
            f"scale must be positive and finite, not {self.scale}",
        )
        for register in (self.register, self.reverse_register):
            require(
                register is None or 0 <= register < REGISTERS,
                f"register must be 0..{REGISTERS - 1}, not {register}",
            )
        for axis in (self.batch_axis, self.time_axis):
            require(
                axis is None or 0 <= axis < len(self.shape),
                f"axis must be within {self.shape}, not {axis}",
            )
        features = 1
        for axis, size in enumerate(self.shape):
            if axis in (self.batch_axis, self.time_axis):
                require(size == -1, f"axis {axis} must have size -1, not {size}")
            else:
                require(size >= 1, f"axis {axis} must have a positive size, not {size}")
                features *= size
        require(
            len(self.positions) == features,
            f"needs {features} positions, not {len(self.positions)}",
        )
        require(0 < self.elements <= 1 << 20, f"elements must be 1..2^20, not {self.elements}")
        require(
            all(0 <= p < self.elements for p in self.positions),
            f"positions must be below {self.elements}",
        )
        require(
            self.stride_bytes % BEAT_BYTES == 0 and 0 < self.stride_bytes <= 1 << 24,
            f"stride_bytes must be a positive multiple of {BEAT_BYTES}, not {self.stride_bytes}",
        )

    def size_bytes(self, config: Config) -> int:
        """Bytes of one step's elements in DDR, without padding to the stride."""
        if self.kind is Kind.COLUMNS:
            return -(-self.elements // config.group) * 8
        return self.elements * 2

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Port:
        """The port of `to_json`'s data. Raises ValueError for missing, unknown or bad fields."""
        names = {field.name for field in fields(Port)}
        if not isinstance(data, dict) or set(data) != names:
            raise ValueError(f"a port must have exactly the fields {sorted(names)}")
        try:
            return Port(
                **{
                    **data,
                    "kind": Kind(data["kind"]),
                    "shape": tuple(data["shape"]),
                    "positions": tuple(data["positions"]),
                }
            )
        except TypeError as error:
            raise ValueError(f"a port has a field of the wrong type: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A buffer in DDR that a program uses between its passes over a sequence: `stride_bytes` a
    step, address in `register`."""

    register: int
    stride_bytes: int
    reverse_register: int | None = None

    def __post_init__(self) -> None:
        for register in (self.register, self.reverse_register):
            if register is not None and not 0 <= register < REGISTERS:
                raise ValueError(f"scratch register must be 0..{REGISTERS - 1}, not {register}")
        if self.stride_bytes % BEAT_BYTES or not 0 < self.stride_bytes <= 1 << 24:
            raise ValueError(
                f"scratch stride_bytes must be a positive multiple of {BEAT_BYTES}, "
                f"not {self.stride_bytes}"
            )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What `inspect` and `estimate` say of one weight matrix: its size, and what compression left
    of it."""

    name: str
    rows: int
    columns: int
    bit_width: int
    kept: int
    """Weights that are not zero."""
    entries: int
    """Stored entries, padding included (digits x lanes)."""
    per_step: bool = True
    """False when the matrix is used once a sequence (after the last step)."""

    def __post_init__(self) -> None:
        if (
            min(self.rows, self.columns) < 1
            or min(self.kept, self.entries) < 0
            or self.bit_width not in (4, 8)
        ):
            raise ValueError(f"layer {self.name!r}: sizes must be positive and bit_width 4 or 8")


STEPS_REGISTER = 0
"""The sequencer register that holds the number of time steps of a run."""
ENTRIES = ("setup", "reset", "run")
"""Entry points: load weights and tables; zero all state; run R0 steps from the state left
behind."""
