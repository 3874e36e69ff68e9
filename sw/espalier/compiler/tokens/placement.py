"""Where tensors lie in DDR: a record for every token of a run, and the cache of keys and values.

A record has a section for each tensor that passes from one loop over the tokens to another: as
values (16 bits) and as column inputs, whichever is read. Keys and values go to the cache instead:
every attention has a region of a row a token, all keys and then all values, of which an EXPAND
makes weights, one group of heads after the other. The elements of query, key, value and context lie
head after head, each head padded to `HeadLayout.padded` elements; all else lies in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...errors import CapacityError
from ...spec import expansion, isa, stores
from ...spec.config import BEAT_BYTES, ITEM_BYTES, SLOTS, Config
from ...spec.isa import Expand, Store
from ...tokens.graph import Attention, Tensor

GAP_BITS = isa.LAYOUTS[isa.Opcode.EXPAND].fields[-1].width
MOST_HEADS = isa.SCALARS // 2
"""Heads of one product: each has a scalar for its maximum and one for its mass."""


@dataclass(frozen=True)
class HeadLayout:
    """How one attention's heads are laid out: `together` heads share a product."""

    heads: int
    head_size: int
    together: int
    padded: int
    most_tokens: int
    config: Config
    alternate: bool = True
    """May use two buffers for keys and values: twice the instructions."""

    @staticmethod
    def choose(operation: Attention, most_tokens: int, config: Config) -> HeadLayout:
        """The number of heads in a product with the fewest cycles that fits slots and weight
        memory.

        Raises CapacityError when not even one head fits.
        """
        unit = max(config.vector_lanes, 2 * config.group)
        padded = -(-operation.head_size // unit) * unit
        fitting = []
        for together in range(1, min(operation.heads, MOST_HEADS) + 1):
            if operation.heads % together:
                continue
            layout = HeadLayout(
                operation.heads, operation.head_size, together, padded, most_tokens, config
            )
            if layout.fits():
                fitting.append(layout)
        if not fitting:
            raise CapacityError(
                f"attention over {most_tokens} tokens with heads of {operation.head_size} does not "
                f"fit the {SLOTS} slots and {config.weight_depth} weight words of {config.name}; "
                "use a smaller max_length"
            )
        return min(fitting, key=lambda one: (one.product_groups / one.together, -one.together))

    @property
    def groups(self) -> int:
        """Groups of heads: products for all heads."""
        return self.heads // self.together

    @property
    def elements(self) -> int:
        """Elements of all heads, padded."""
        return self.heads * self.padded

    @property
    def row_bytes(self) -> int:
        """Bytes of a token's columns in one group of heads."""
        return self.together * self.padded // self.config.group * ITEM_BYTES

    @property
    def token_bytes(self) -> int:
        """Bytes of a token's keys and values of all heads: first all keys, then all values."""
        return 2 * self.groups * self.row_bytes

    @property
    def product_groups(self) -> int:
        """Column groups of a score product in each array."""
        return self.config.groups_per_array(self.together * self.padded)

    @property
    def context_groups(self) -> int:
        """Column groups of a context product in each array."""
        return self.together * self.config.groups_per_array(self.most_tokens)

    @property
    def score_slots(self) -> int:
        """Slots of one digit plane of a head's scores."""
        return -(-self.most_tokens // self.config.lanes)

    @property
    def context_slots(self) -> int:
        return -(-self.padded // self.config.lanes)

    def expand(self, kind: Expand) -> dict[str, int]:
        """The EXPAND's own fields, but registers."""
        keys = kind == Expand.ROWS
        words = 0
        if not keys:
            words = expansion.words(self.expand(Expand.ROWS), self.config, self.most_tokens)
        return {
            "kind": kind,
            "address": words,
            "most": self.most_tokens,
            "heads": self.together,
            "groups": self.padded // self.config.group,
            "slot": 0 if keys else 2 * self.together * self.score_slots,
            "slots": self.score_slots if keys else self.context_slots,
            "gap": (self.token_bytes - self.row_bytes) // BEAT_BYTES,
        }

    @property
    def words(self) -> int:
        """Weight words of keys and values in each array."""
        values = self.expand(Expand.COLUMNS)
        return values["address"] + expansion.words(values, self.config, self.most_tokens)

    @property
    def buffers(self) -> int:
        """Groups of heads whose keys and values are weights at once."""
        c = self.config
        twice = (
            self.alternate
            and self.groups > 1
            and 2 * self.words <= c.weight_depth
            and 2 * (self.product_groups + self.context_groups) <= c.descriptor_depth
        )
        return 2 if twice else 1

    def fits(self) -> bool:
        slots = 2 * self.together * (self.score_slots + self.context_slots)
        groups = self.product_groups + self.context_groups
        return (
            slots <= SLOTS
            and self.token_bytes // BEAT_BYTES < 1 << GAP_BITS
            and self.words <= self.config.weight_depth
            and self.together * self.padded // self.config.group <= isa.MOST_ROW_GROUPS
            and groups <= min(self.config.descriptor_depth, self.config.column_depth)
            and self.config.chunks(self.most_tokens) <= self.config.first_scalar
        )

    def positions(self) -> np.ndarray:
        """Element of every feature."""
        feature = np.arange(self.heads * self.head_size)
        return feature // self.head_size * self.padded + feature % self.head_size


@dataclass(eq=False)
class Section:
    """A tensor's columns or values in the record: `offset` bytes into it."""

    name: str
    offset: int
    columns: bool


@dataclass(eq=False)
class Record:
    """The sections of a token's record."""

    config: Config
    size: int = 0
    sections: dict[tuple[Tensor, bool], Section] = field(default_factory=dict)

    def section(self, tensor: Tensor, elements: int, *, columns: bool) -> Section:
        """The tensor's section, made when it is asked for first."""
        key = tensor, columns
        if key not in self.sections:
            kind = "columns" if columns else "values"
            self.sections[key] = Section(f"{tensor.name} {kind}", self.size, columns)
            self.size += stored_bytes(self.config, elements, columns=columns)
        return self.sections[key]


def stored_bytes(config: Config, elements: int, *, columns: bool) -> int:
    """Bytes that elements take in a record."""
    kind = Store.COLUMNS if columns else Store.VALUES
    return stores.stored_bytes(config, kind, config.chunks(elements))
