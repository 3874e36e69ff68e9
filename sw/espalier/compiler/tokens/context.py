"""What all passes of a token program share: the layout of every tensor, and who reads it how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from ...errors import UnsupportedModelError
from ...spec.config import Config
from ...tokens.graph import Attention, Linear, Operation, Tensor, TokenGraph
from .blocks import Blocks, find_blocks, inputs
from .placement import HeadLayout, Record
from .products import Shape


class Use(Enum):
    """How an operation takes a tensor."""

    COLUMNS = "columns"
    VALUES = "values"
    CACHE = "cache"


@dataclass(frozen=True)
class Reader:
    """Operation `index` of a block's written layer reads a tensor; `later` says that it is the next
    layer's."""

    block: int
    index: int
    use: Use
    later: bool = False


def unit(config: Config) -> int:
    """Elements come in multiples of this, so that any block of rows can be stored or written as
    columns by itself."""
    c = config
    return math.lcm(c.lanes, c.arrays * c.group, 2 * c.group, c.vector_lanes)


@dataclass(eq=False)
class Context:
    """The graph cut into blocks, with layouts and readers by written tensor."""

    graph: TokenGraph
    config: Config
    most_tokens: int
    blocks: Blocks
    shapes: dict[Tensor, Shape] = field(default_factory=dict)
    heads: dict[Attention, HeadLayout] = field(default_factory=dict)
    padded: dict[Tensor, int] = field(default_factory=dict)
    """Elements of a head, of tensors that lie head after head."""
    readers: dict[Tensor, list[Reader]] = field(default_factory=dict)
    same: dict[Tensor, Tensor] = field(default_factory=dict)
    """Tensors that take the place of another one for the next layer."""
    regions: dict[Tensor, int] = field(default_factory=dict)
    """Offset of a key or value in its layer's first row of the cache."""
    cache_bytes: list[int] = field(default_factory=list)
    """Bytes of the cache that one layer of each block takes."""
    widths: dict[Tensor, int] = field(init=False)
    record: Record = field(init=False)
    stride: int = 0
    """Bytes of a record, known when all passes have asked for their sections."""

    def __post_init__(self) -> None:
        self.record = Record(self.config)
        self.widths = self.blocks.widths()

    @staticmethod
    def of(graph: TokenGraph, config: Config, most_tokens: int) -> Context:
        """Raises UnsupportedModelError for a tensor that is used in two layouts, CapacityError for
        heads that do not fit."""
        context = Context(graph, config, most_tokens, find_blocks(graph))
        for number, block in enumerate(context.blocks.blocks):
            context.cache_bytes.append(0)
            for new, old in ((new, old) for old, new in block.carried.items()):
                context.same[new] = old
            for index, operation in enumerate(block.template):
                context._read(number, index, operation)
                if isinstance(operation, Attention):
                    context._lay_out(operation)
        for tensor in set(graph.outputs.values()):
            written = context.blocks.written(tensor)
            end = Reader(len(context.blocks.blocks), 0, Use.VALUES)
            context.readers.setdefault(written, []).append(end)
        return context

    @property
    def unit(self) -> int:
        return unit(self.config)

    def shape(self, tensor: Tensor) -> Shape:
        tensor = self.home(tensor)
        if tensor not in self.shapes:
            elements = -(-self.widths[tensor] // self.unit) * self.unit
            self.shapes[tensor] = Shape(np.arange(tensor.width), elements)
        return self.shapes[tensor]

    def home(self, tensor: Tensor) -> Tensor:
        """The tensor whose place this one has."""
        tensor = self.blocks.written(tensor)
        while tensor in self.same:
            tensor = self.same[tensor]
        return tensor

    def read_by(self, tensor: Tensor) -> list[Reader]:
        """All readers of what is in the tensor's place; for a carried tensor also the next
        layer's."""
        own = list(self.readers.get(tensor, []))
        if tensor in self.same:
            home = self.home(tensor)
            own += [Reader(r.block, r.index, r.use, True) for r in self.readers.get(home, [])]
        return own

    def layout_of(self, tensor: Tensor) -> HeadLayout:
        """The layout of the attention whose key or value the tensor is."""
        home = self.home(tensor)
        for operation, layout in self.heads.items():
            if home in (self.home(operation.key), self.home(operation.value)):
                return layout
        raise KeyError(tensor.name)

    def _read(self, number: int, index: int, operation: Operation) -> None:
        for position, tensor in enumerate(inputs(operation)):
            use = Use.COLUMNS if isinstance(operation, Linear) else Use.VALUES
            if isinstance(operation, Attention):
                use = Use.COLUMNS if position == 0 else Use.CACHE
            written = self.blocks.written(tensor)
            self.readers.setdefault(written, []).append(Reader(number, index, use))

    def _lay_out(self, operation: Attention) -> None:
        layout = HeadLayout.choose(operation, self.most_tokens, self.config)
        others = [one for one in self.heads.values() if one.token_bytes != layout.token_bytes]
        if others:
            raise UnsupportedModelError(
                "all attention layers must have the same number and size of heads, not "
                f"{layout.heads} x {layout.head_size} and {others[0].heads} x "
                f"{others[0].head_size}"
            )
        self.heads[operation] = layout
        shape = Shape(layout.positions(), layout.elements)
        for tensor in (*inputs(operation), operation.output):
            home = self.home(tensor)
            if home in self.shapes:
                raise UnsupportedModelError(
                    f"{tensor.name!r} goes into several attentions or is both key and value; "
                    f"give each its own projection\n    at {tensor.source}"
                )
            self.shapes[home] = shape
            self.padded[home] = layout.padded
        first = self.cache_bytes[-1]
        self.regions[self.home(operation.key)] = first
        self.regions[self.home(operation.value)] = first + layout.token_bytes // 2
        self.cache_bytes[-1] += layout.token_bytes * layout.most_tokens
