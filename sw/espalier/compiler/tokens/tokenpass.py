"""One loop over the tokens: which operations it holds, what they load, keep and store."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...errors import CapacityError
from ...parameters import Rows
from ...spec.config import SLOTS
from ...tokens.evaluate import entries
from ...tokens.graph import (
    Input,
    LayerNorm,
    Linear,
    Rescale,
    Table,
    Tensor,
)
from ..allocate import Parameters, constant_rows
from ..products import SlotRing
from .blocks import Block, inputs
from .chains import Chain, fuse
from .context import Context, Use
from .products import PassData, block_rows, pack_rows, placed

Range = tuple[int, int]
"""First and end of addresses in the weight memory."""
SLOT_SHARE = SLOTS // 2
"""Blocks of rows take at least so many slots, so that they alternate between equal shares."""


@dataclass(eq=False)
class TokenPass:
    """Operations indices of `block`'s written layer, in one loop over the tokens.

    With `tiles` > 1 it holds one linear layer, whose rows are loaded and multiplied tile by tile.
    """

    context: Context
    number: int
    """The block's number."""
    indices: list[int]
    tiles: int = 1
    chains: list[Chain] = field(default_factory=list)
    data: PassData = field(init=False)
    paired: bool = True
    """Two tokens a loop body, with loads ahead; otherwise one, in the least instructions."""
    final: Tensor | None = None
    """The tensor that goes to the output rows."""
    order: list[tuple[int, int]] | None = None
    """The loop of pairs (`pipeline.Pipeline.order`), once it is found."""
    early: list[Range] = field(default_factory=list)
    """Addresses of weights that are loaded while the pass before runs."""
    late: list[Range] = field(default_factory=list)
    """Those that are loaded when it has ended (`residence`)."""

    @property
    def block(self) -> Block:
        return self.context.blocks.blocks[self.number]

    def __post_init__(self) -> None:
        self.data = PassData(self.context.config, len(self.block.layers), self.tiles)

    # What passes through the loop

    @property
    def made(self) -> set[Tensor]:
        return {self.block.template[i].output for i in self.indices}

    def loads(self) -> list[tuple[Tensor, bool]]:
        """(tensor, as columns) that a token brings along, in the order of use."""
        result: dict[tuple[Tensor, bool], None] = {}
        made: set[Tensor] = set()
        for i in self.indices:
            operation = self.block.template[i]
            for tensor in inputs(operation):
                written = self.context.blocks.written(tensor)
                if written not in made:
                    result[written, isinstance(operation, Linear)] = None
            made.add(operation.output)
        if self.final is not None and self.final not in made:
            result[self.final, False] = None
        return list(result)

    def used_here(self, tensor: Tensor, use: Use) -> bool:
        """Whether an operation of this pass takes the tensor so, in the same layer."""
        return any(
            r.block == self.number and r.index in self.indices and r.use is use and not r.later
            for r in self.context.read_by(tensor)
        )

    def stored(self, tensor: Tensor, use: Use) -> bool:
        """Whether something outside of the loop takes the tensor so."""
        return any(
            r.use is use and (r.later or r.block != self.number or r.index not in self.indices)
            for r in self.context.read_by(tensor)
            if not (self.final is tensor and r.block == len(self.context.blocks.blocks))
        )

    @property
    def weights(self) -> Range:
        """What the weights take of their memory."""
        return self.data.base, self.data.base + self.data.size * bool(self.data.blocks)

    # Data

    def prepare(self) -> None:
        """Pack weights, make parameters, constants and tables. Raises CapacityError when the pass
        does not fit the configuration."""
        self.chains = fuse(self)
        ring = SlotRing()
        for chain in self.chains:
            layers = [[layer[i] for i in chain.indices] for layer in self.block.layers]
            if isinstance(chain.head, Linear):
                self._linear(chain, [layer[0] for layer in layers], ring)
            elif isinstance(chain.head, Rescale):
                chain.parameters = [[self._constant(layer[0])] for layer in layers]
                self.data.parameters.append(chain.parameters)
            for position, operation in enumerate(chain.operations):
                if isinstance(operation, Table):
                    self._table(operation, [layer[position] for layer in layers])
                if isinstance(operation, LayerNorm):
                    self._norm(operation, [layer[position] for layer in layers])
        self._fuse_moments()
        self.data.place()
        self.check()

    def _constant(self, operation: Rescale) -> Parameters:
        elements = self.context.shape(operation.output).elements
        scale = operation.input.scale / operation.output.scale
        return Parameters(constant_rows(scale, elements), self.context.config.chunks(elements))

    def _linear(self, chain: Chain, operations: list[Linear], ring: SlotRing) -> None:
        context, config = self.context, self.context.config
        shape, source = context.shape(chain.head.output), context.shape(chain.head.input)
        both = [placed(operation, source, shape) for operation in operations]
        planes = chain.head.matrix.planes
        elements = shape.elements // self.tiles
        blocks = [(0, elements)]
        if self.tiles == 1:
            blocks = block_rows(elements, planes, self._unit(chain.head), config)
        for rows in blocks:
            height = -(-(rows[1] - rows[0]) // config.lanes)
            block = pack_rows(
                chain.head.name,
                [weight for weight, _ in both],
                chain.head.matrix.bit_width,
                rows,
                self.tiles,
                ring.take(max(height * planes, SLOT_SHARE)),
                config,
            )
            chain.blocks.append(block)
            self.data.blocks.append(block)
        chain.parameters = [
            [
                Parameters(part, config.chunks(elements))
                for part in (_rows(rows, t * elements, elements) for t in range(self.tiles))
            ]
            for _, rows in both
        ]
        self.data.parameters.append(chain.parameters)

    def _unit(self, operation: Linear) -> int:
        """Rows come in multiples of this."""
        return self.context.padded.get(self.context.home(operation.output), self.context.unit)

    def _table(self, operation: Table, layers: list[Table]) -> None:
        made = [entries(one.function, one.input.scale, one.output.scale) for one in layers]
        if (operation.function, made) not in self.data.tables:
            self.data.tables.append((operation.function, made))

    def table_number(self, chain: Chain) -> int:
        """Which table the chain's function is."""
        position = next(p for p, o in enumerate(chain.operations) if isinstance(o, Table))
        layers = [layer[chain.indices[position]] for layer in self.block.layers]
        made = [entries(one.function, one.input.scale, one.output.scale) for one in layers]
        return self.data.tables.index((chain.operations[position].function, made))

    def _norm(self, operation: LayerNorm, layers: list[LayerNorm]) -> None:
        shape = self.context.shape(operation.output)

        def spread(values: np.ndarray) -> np.ndarray:
            result = np.zeros(shape.elements, np.int16)
            result[shape.positions] = values
            return result

        self.data.constants.append([spread(one.factor) for one in layers])
        self.data.constants.append([spread(one.offset) for one in layers])

    def _fuse_moments(self) -> None:
        """A LayerNorm's moments are taken by the VECTOR that makes its input, where that is one of
        whole chunks."""
        for chain in self.chains:
            norm = chain.head
            if (
                not isinstance(norm, LayerNorm)
                or self.moments_of(chain.indices[0]) != (chain.indices[0])
            ):
                continue
            source = self.context.blocks.written(norm.input)
            maker = next((c for c in self.chains if c.output is source), None)
            whole = self.context.shape(source).elements == source.width
            if maker is None or isinstance(maker.head, Input | LayerNorm):
                continue
            if whole and len(maker.blocks) <= 1 and maker.norm is None:
                maker.norm = chain.indices[0]

    def moments_of(self, index: int) -> int:
        """The first LayerNorm of the pass with the same input and gain as LayerNorm `index`: they
        share their moments."""
        written, norm = self.context.blocks.written, self.block.template[index]
        return next(
            i
            for i in self.indices
            if isinstance(one := self.block.template[i], LayerNorm)
            and written(one.input) is written(norm.input)
            and one.gain == norm.gain
        )

    def check(self) -> None:
        """Raise CapacityError unless everything fits at once."""
        config, data = self.context.config, self.data
        names = ", ".join(c.head.name for c in self.chains if isinstance(c.head, Linear))
        for what, need, limit in (
            ("weight words", data.words(), config.weight_depth),
            ("descriptors", data.groups, config.descriptor_depth),
            ("parameter chunks", data.parameter_chunks, config.first_scalar),
            ("tables", len(data.tables), config.tables),
            ("vector chunks", self.vector_chunks(), config.vector_depth),
            ("column groups", self.column_groups(), config.column_depth),
        ):
            if need > limit:
                raise CapacityError(
                    f"{names or 'a pass over the tokens'} needs {need} {what}, {config.name} has "
                    f"{limit}; use a lower density, fewer bits or a larger configuration"
                )

    # Places on the chip, twice: for even and odd tokens

    def value_tensors(self) -> list[Tensor]:
        """Tensors with a place in vector memory."""
        result = [tensor for tensor, columns in self.loads() if not columns]
        for chain in self.chains:
            t = chain.output
            both = self.stored(t, Use.VALUES) + self.stored(t, Use.COLUMNS) + (t is self.final) > 1
            if self.used_here(t, Use.VALUES) or both or isinstance(chain.head, Input):
                result.append(t)
        return list(dict.fromkeys(result))

    def column_tensors(self) -> list[Tensor]:
        """Tensors with a place in activation memory."""
        result = [tensor for tensor, columns in self.loads() if columns]
        result += [c.output for c in self.chains if self.used_here(c.output, Use.COLUMNS)]
        return list(dict.fromkeys(result))

    def vector_chunks(self) -> int:
        chunks = self.context.config.chunks
        each = sum(chunks(self.context.shape(t).elements) for t in self.value_tensors())
        return self.data.constant_chunks + 2 * each

    def column_groups(self) -> int:
        groups = self.context.config.groups_per_array
        return 2 * sum(groups(self.context.shape(t).elements) for t in self.column_tensors())


def _rows(rows: Rows, first: int, count: int) -> Rows:
    part = slice(first, first + count)
    return Rows(multiplier=rows.multiplier[part], shift=rows.shift[part], bias=rows.bias[part])
