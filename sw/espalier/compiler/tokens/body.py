"""The instructions of one token in a pass: products, the VECTORs of every chain, loads of a later
token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...spec import isa
from ...spec.config import SCALARS
from ...spec.isa import Combine, Finish, Function, Mode, Scale, Source, Sums
from ...spec.memory import Memory
from ...spec.tokens import Register
from ...tokens.graph import Add, Input, LayerNorm, Linear, Relu, Rescale, Table, Tensor
from ..emit import Assembly
from .chains import Chain
from .context import Context, Use
from .order import LOAD_LATENCY, SCALAR_LATENCY, VECTOR_LATENCY, Item
from .placement import stored_bytes
from .products import RowBlock
from .registers import CURSOR, SPARE
from .targets import Target, Targets
from .tokenpass import TokenPass


@dataclass(eq=False)
class Body:
    """Writes tokens of one pass. `strides` are the distances of two tokens by cursor register."""

    token_pass: TokenPass
    assembly: Assembly
    strides: dict[int, int] = field(default_factory=dict)
    values: dict[tuple[Tensor, int], int] = field(default_factory=dict)
    columns: dict[tuple[Tensor, int], int] = field(default_factory=dict)
    scalars: dict[tuple[int, int], int] = field(default_factory=dict)
    places: Targets = field(init=False)
    constants: dict[int, int] = field(default_factory=dict)
    """First chunk of the factor of LayerNorm i; its offset follows."""

    @property
    def context(self) -> Context:
        return self.token_pass.context

    def __post_init__(self) -> None:
        self.places = Targets(self.token_pass, self.strides)
        config, plan = self.context.config, self.token_pass
        chunk, group = plan.data.constant_chunks, 0
        for parity in range(2):
            for tensor in plan.value_tensors():
                self.values[tensor, parity] = chunk
                chunk += config.chunks(self.context.shape(tensor).elements)
            for tensor in plan.column_tensors():
                self.columns[tensor, parity] = group
                group += config.groups_per_array(self.context.shape(tensor).elements)
        constant = 0
        numbers: dict[int, int] = {}
        for chain in plan.chains:
            if isinstance(chain.head, LayerNorm):
                for parity in range(2):
                    # in halves: a token's LayerNorm does not wait for the next one's moments
                    number = numbers.setdefault(plan.moments_of(chain.indices[0]), len(numbers))
                    self.scalars[chain.indices[0], parity] = number + parity * SCALARS // 2
                self.constants[chain.indices[0]] = constant
                constant += 2 * config.chunks(self.context.shape(chain.output).elements)
        self.strides[CURSOR] = self.context.stride

    # One token

    def token(self, parity: int, ahead: int) -> list[Item]:
        """A token whose inputs lie in buffer `parity`; the loads of the next one go to the other.
        `ahead` is the token's number within the loop body."""
        items = [item for item in self.loads(1 - parity, ahead + 1)]
        for chain in self.token_pass.chains:
            items += self._chain(chain, parity, ahead)
        final = self.token_pass.final
        if final is not None and final not in self.token_pass.made:
            items.append(self._copy(final, parity, [self.places.output(final, 0)], ahead))
        return items

    def loads(self, parity: int, ahead: int) -> list[Item]:
        """The loads of the token `ahead` of the cursors."""
        return [self._load(t, columns, parity, ahead) for t, columns in self.token_pass.loads()] + [
            self._load_input(chain.head, parity, ahead)
            for chain in self.token_pass.chains
            if isinstance(chain.head, Input)
        ]

    def _item(self, write: Callable[[], Any], busy: int, latency: int) -> Item:
        start = len(self.assembly.nodes)
        write()
        nodes = self.assembly.nodes[start:]
        del self.assembly.nodes[start:]
        return Item(nodes, busy, latency)

    def _load(self, tensor: Tensor, columns: bool, parity: int, ahead: int) -> Item:
        config, shape = self.context.config, self.context.shape(tensor)
        home = self.context.home(tensor)
        section = self.context.record.section(home, shape.elements, columns=columns)
        memory = Memory.ACTIVATIONS if columns else Memory.VECTOR
        count = shape.elements // (config.group if columns else 4)
        place = self.columns if columns else self.values
        offset = section.offset + ahead * self.strides[CURSOR]
        return self._item(
            lambda: self.assembly.load_buffer(
                memory, place[tensor, parity], count, CURSOR, offset=offset, section=section.name
            ),
            count,
            LOAD_LATENCY,
        )

    def _load_input(self, operation: Input, parity: int, ahead: int) -> Item:
        shape = self.context.shape(operation.output)
        stride = stored_bytes(self.context.config, shape.elements, columns=False)
        self.strides[int(Register.INPUT)] = stride
        offset = ahead * stride
        return self._item(
            lambda: self.assembly.load_buffer(
                Memory.VECTOR,
                self.values[operation.output, parity],
                shape.elements // 4,
                int(Register.INPUT),
                offset=offset,
            ),
            shape.elements // 4,
            LOAD_LATENCY,
        )

    # Chains

    def _chain(self, chain: Chain, parity: int, ahead: int) -> list[Item]:
        head = chain.head
        if isinstance(head, Input):
            targets = self.places.of(chain.output, 0, chain.output.width)
            return [self._copy(chain.output, parity, targets, ahead)] if self._any(chain) else []
        if not isinstance(head, Linear):
            elements = self.context.shape(chain.output).elements
            items = []
            first = -1
            if isinstance(head, LayerNorm):
                first = self.token_pass.moments_of(chain.indices[0])
            if first == chain.indices[0] and not any(
                c.norm == first for c in self.token_pass.chains
            ):
                items.append(self._moments(chain, parity))
            return items + self._vectors(chain, parity, ahead, 0, elements, None)
        items = []
        for block in chain.blocks:
            items.append(self._product(chain, block, parity))
            items += self._vectors(chain, parity, ahead, block.first, block.end, block)
        return items

    def _any(self, chain: Chain) -> bool:
        t = chain.output
        return self.token_pass.used_here(t, Use.COLUMNS) or bool(
            self.places.of(t, 0, self.context.shape(t).elements)
        )

    def _product(self, chain: Chain, block: RowBlock, parity: int) -> Item:
        return self._item(
            lambda: self.assembly.product(
                mode=Mode.PLAIN,
                groups=block.groups,
                activations=self.columns[self.context.blocks.written(chain.head.input), parity],
                descriptors=block.descriptors,
                weights=block.weights,
                slots=block.slots,
            ),
            block.words(),
            12,
        )

    def _moments(self, chain: Chain, parity: int) -> Item:
        """A LayerNorm's moments by themselves."""
        config, source = self.context.config, self.context.blocks.written(chain.head.input)
        chunks = config.chunks(source.width)

        def write() -> None:
            bound = {}
            if source.width % config.vector_lanes:
                self.assembly.set(SPARE, source.width)
                bound = {"bounded": 1, "register": SPARE}
            self.assembly.vector(
                count=chunks,
                source=Source.OPERAND,
                operand0=self.values[source, parity],
                **self._reduction(chain.indices[0], parity),
                **bound,
            )

        return self._item(write, chunks, VECTOR_LATENCY + SCALAR_LATENCY)

    def _reduction(self, norm: int, parity: int) -> dict[str, int]:
        gain = self.token_pass.block.template[norm].gain
        address = isa.reduction_address(self.scalars[norm, parity], gain)
        return {"sums": Sums.MOMENTS, "sum_address": address}

    def _vectors(
        self,
        chain: Chain,
        parity: int,
        ahead: int,
        first: int,
        end: int,
        block: RowBlock | None,
    ) -> list[Item]:
        """The VECTORs of rows first..end: one, and one more for every further place in DDR."""
        targets = self.places.of(chain.output, first, end)
        fields = self._fields(chain, parity, first, end, block)
        items = [self._vector(chain, parity, ahead, fields, first, targets)]
        for target in targets[1:]:
            again = self._operand(chain.output, parity, first, end)
            if block is None:  # computed once more, nothing has to be waited for
                again = self._fields(chain, parity, first, end, None)
            items.append(self._store_item(again, target, ahead))
        return items

    def _vector(
        self,
        chain: Chain,
        parity: int,
        ahead: int,
        fields: dict[str, Any],
        first: int,
        targets: list[Target],
    ) -> Item:
        config, tensor = self.context.config, chain.output
        if (tensor, parity) in self.values:
            address = self.values[tensor, parity] + first // config.vector_lanes
            fields |= {"write_vector": 1, "vector_address": address}
        if self.token_pass.used_here(tensor, Use.COLUMNS):
            address = self.columns[tensor, parity] + first // (config.group * config.arrays)
            fields |= {"write_columns": 1, "column_address": address}
        latency = VECTOR_LATENCY
        if chain.norm is not None:
            fields |= self._reduction(chain.norm, parity)
            latency += SCALAR_LATENCY
        return self._store_item(fields, targets[0] if targets else None, ahead, latency)

    def _store_item(
        self,
        fields: dict[str, Any],
        target: Target | None,
        ahead: int,
        latency: int = VECTOR_LATENCY,
    ) -> Item:
        def write() -> None:
            store: dict[str, Any] = {}
            if target is not None:
                offset = target.offset + ahead * self.strides[target.register]
                register = target.register
                if offset:
                    self.assembly.set(SPARE, offset, register)
                    register = SPARE
                store = {"store": target.kind, "register": register, "section": target.section}
            self.assembly.vector(**fields, **store)

        planes = 2 if fields["source"] == Source.DRAIN_PLANES else 1
        return self._item(write, fields["count"] * planes, latency)

    def _copy(self, tensor: Tensor, parity: int, targets: list[Target], ahead: int) -> Item:
        """From vector memory to columns and DDR."""
        config, elements = self.context.config, self.context.shape(tensor).elements
        fields = self._operand(tensor, parity, 0, elements)
        if self.token_pass.used_here(tensor, Use.COLUMNS):
            fields |= {"write_columns": 1, "column_address": self.columns[tensor, parity]}
        items = [self._store_item(fields, targets[0] if targets else None, ahead)]
        for target in targets[1:]:
            again = self._operand(tensor, parity, 0, elements)
            items.append(self._store_item(again, target, ahead))
        assert config.chunks(elements) == fields["count"]
        nodes = [node for item in items for node in item.nodes]
        return Item(nodes, len(items) * fields["count"], VECTOR_LATENCY)

    def _operand(self, tensor: Tensor, parity: int, first: int, end: int) -> dict[str, Any]:
        lanes = self.context.config.vector_lanes
        return {
            "count": (end - first) // lanes,
            "source": Source.OPERAND,
            "operand0": self.values[tensor, parity] + first // lanes,
        }

    def _fields(
        self, chain: Chain, parity: int, first: int, end: int, block: RowBlock | None
    ) -> dict[str, Any]:
        """What the chain's operations compute on elements first..end."""
        config, written = self.context.config, self.context.blocks.written
        chunk = first // config.vector_lanes
        fields: dict[str, Any] = {"count": (end - first) // config.vector_lanes}

        def value(tensor: Tensor) -> int:
            return self.values[written(tensor), parity] + chunk

        if block is not None:
            start = block.slot * config.slot_chunks + (first - block.first) // config.vector_lanes
            source = Source.DRAIN_PLANES if block.planes == 2 else Source.DRAIN
            fields |= {"source": source, "drain": start}
            if block.planes == 2:
                fields["plane_stride"] = block.height * config.slot_chunks
        if chain.parameters is not None:
            address = chain.parameters[0][0].address + chunk
            fields |= {"scale": Scale.ROWS, "parameters": address}
        for operation in chain.operations:
            match operation:
                case Linear():
                    pass
                case Add(a=a, b=b) if "source" in fields:
                    other = b if written(a) is chain.operations[0].output else a
                    fields |= {"combine": Combine.ADD, "operand1": value(other)}
                case Add(a=a, b=b):
                    fields |= {"source": Source.OPERAND, "operand0": value(a)}
                    fields |= {"combine": Combine.ADD, "operand1": value(b)}
                case LayerNorm(input=x):
                    factor = self.constants[chain.indices[0]]
                    size = config.chunks(self.context.shape(chain.output).elements)
                    fields |= {
                        "source": Source.OPERAND,
                        "operand0": value(x),
                        "scale": Scale.SCALAR,
                        "parameters": self.scalars[chain.indices[0], parity],
                        "combine": Combine.AMPLIFY,
                        "operand1": factor + chunk,
                        "finish": Finish.ADD,
                        "operand2": factor + size + chunk,
                    }
                case Relu() | Table():
                    if "source" not in fields:
                        source_value = value(operation.input)
                        fields |= {"source": Source.OPERAND, "operand0": source_value}
                    fields["function"] = Function.RELU
                    if isinstance(operation, Table):
                        number = self.token_pass.table_number(chain)
                        fields["function"] = Function(Function.TABLE0 + number)
                case Rescale(input=x):
                    fields |= {"source": Source.OPERAND, "operand0": value(x)}
        return fields
