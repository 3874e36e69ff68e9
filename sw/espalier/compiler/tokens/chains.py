"""The operations of a pass cut into chains: what one VECTOR computes for every block of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...tokens.graph import Add, Linear, Relu, Rescale, Table, Tensor
from ..allocate import Parameters
from .blocks import inputs
from .context import Use
from .products import RowBlock

if TYPE_CHECKING:
    from .tokenpass import TokenPass


@dataclass(eq=False)
class Chain:
    """Operations that one VECTOR computes for every block of rows: the head, then what is fused
    behind it."""

    indices: list[int]
    operations: list[Any]
    blocks: list[RowBlock] = field(default_factory=list)
    parameters: list[list[Parameters]] | None = None
    norm: int | None = None
    """The LayerNorm whose moments this chain's VECTOR takes on the way."""

    @property
    def head(self) -> Any:
        return self.operations[0]

    @property
    def output(self) -> Tensor:
        return self.operations[-1].output

    @property
    def reads(self) -> list[Tensor]:
        """What comes from outside of the chain."""
        own = {operation.output for operation in self.operations}
        return [t for operation in self.operations for t in inputs(operation) if t not in own]


def fuse(plan: TokenPass) -> list[Chain]:
    """The pass's operations as chains, in the order of a token."""
    order, taken, chains = _hoisted(plan), set[int](), []
    for i in order:
        if i in taken:
            continue
        chain = Chain([i], [plan.block.template[i]])
        taken.add(i)
        if isinstance(chain.head, Linear):
            _extend(plan, chain, order, taken)
        chains.append(chain)
    return _cache_first(plan, chains)


def _cache_first(plan: TokenPass, chains: list[Chain]) -> list[Chain]:
    """Keys and values before other linear layers that do not depend on each other: what comes last
    in a token can be put off, stores to the cache cannot."""
    places = [n for n, chain in enumerate(chains) if isinstance(chain.head, Linear)]
    if not places or places != list(range(places[0], places[0] + len(places))):
        return chains
    linear = chains[places[0] : places[-1] + 1]
    outputs, written = {chain.output for chain in linear}, plan.context.blocks.written
    if any(written(t) in outputs for chain in linear for t in chain.reads):
        return chains
    linear.sort(key=lambda chain: not plan.stored(chain.output, Use.CACHE))
    return [*chains[: places[0]], *linear, *chains[places[-1] + 1 :]]


def _hoisted(plan: TokenPass) -> list[int]:
    """Changes of scale first, as early as their inputs are there."""
    made, early, rest = plan.made, [], []
    for i in plan.indices:
        operation = plan.block.template[i]
        free = isinstance(operation, Rescale) and not set(inputs(operation)) & made
        (early if free else rest).append(i)
    return early + rest


def _extend(plan: TokenPass, chain: Chain, order: list[int], taken: set[int]) -> None:
    """Fuse an addition (not in tiles) and a function behind a linear layer, where nobody else reads
    what is between."""
    while (i := _only_reader(plan, chain.output)) is not None:
        operation = plan.block.template[i]
        kinds = [type(one) for one in chain.operations]
        if isinstance(operation, Add) and plan.tiles == 1 and kinds == [Linear]:
            other = operation.b if operation.a is chain.output else operation.a
            if operation.a is operation.b or not _before(plan, other, chain.indices[0], order):
                return
        elif not isinstance(operation, Table | Relu) or kinds[-1] in (Table, Relu):
            return
        chain.indices.append(i)
        chain.operations.append(operation)
        taken.add(i)


def _only_reader(plan: TokenPass, tensor: Tensor) -> int | None:
    readers = plan.context.read_by(tensor)
    if len(readers) != 1 or tensor is plan.final:
        return None
    reader = readers[0]
    here = reader.block == plan.number and reader.index in plan.indices and not reader.later
    return reader.index if here and reader.use is Use.VALUES else None


def _before(plan: TokenPass, tensor: Tensor, index: int, order: list[int]) -> bool:
    """Whether the tensor is there when operation `index` of the order is reached."""
    if tensor not in plan.made:
        return True
    position = {plan.block.template[i].output: p for p, i in enumerate(order)}
    return position[tensor] < order.index(index)
