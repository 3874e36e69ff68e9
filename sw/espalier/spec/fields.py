"""Declared bit-fields: one declaration is the layout, the encoder, the decoder and the range
check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True)
class Field:
    """`width` bits called `name`; `signed` is two's complement; `choices` lists the legal values of
    an enumeration."""

    name: str
    width: int
    meaning: str
    signed: bool = False
    choices: type[IntEnum] | None = None

    @property
    def low(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.width - self.signed)) - 1

    def check(self, value: int) -> None:
        """Raise ValueError unless `value` fits the field."""
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name} must be in {self.low}..{self.high}, not {value}")
        if self.choices is not None and value not in list(self.choices):
            names = ", ".join(f"{choice.name.lower()}={choice.value}" for choice in self.choices)
            raise ValueError(f"{self.name} must be one of: {names}, not {value}")


@dataclass(frozen=True)
class Layout:
    """Fields from bit 0 upwards, in a word of `width` bits; the bits above the last field are
    zero."""

    name: str
    width: int
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        used = sum(field.width for field in self.fields)
        if used > self.width:
            raise ValueError(f"{self.name}: fields take {used} bits, more than {self.width}")

    def offsets(self) -> dict[str, int]:
        """Lowest bit of every field."""
        positions, position = {}, 0
        for field in self.fields:
            positions[field.name] = position
            position += field.width
        return positions

    def pack(self, values: Mapping[str, int]) -> int:
        """The word that holds `values`; a missing field is 0.

        Raises ValueError for an unknown name or a value outside its field.
        """
        unknown = set(values) - {field.name for field in self.fields}
        if unknown:
            raise ValueError(f"{self.name} has no field {sorted(unknown)[0]!r}")
        word, position = 0, 0
        for field in self.fields:
            value = int(values.get(field.name, 0))
            field.check(value)
            word |= (value & ((1 << field.width) - 1)) << position
            position += field.width
        return word

    def unpack(self, word: int) -> dict[str, int]:
        """All fields of `word`. Raises ValueError when an unused bit is set or a value is not
        legal."""
        if not 0 <= word < 1 << self.width:
            raise ValueError(f"{self.name} word must have {self.width} bits, not {word:#x}")
        values = {}
        for field in self.fields:
            value = word & ((1 << field.width) - 1)
            word >>= field.width
            if field.signed and value >> (field.width - 1):
                value -= 1 << field.width
            field.check(value)
            values[field.name] = value
        if word:
            raise ValueError(f"{self.name}: unused bits must be 0, not {word:#x}")
        return values
