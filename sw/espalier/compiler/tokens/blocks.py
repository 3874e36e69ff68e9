"""Equal layers become one piece of code: a transformer's graph as blocks, each run once or in a
loop over its layers.

Layers are equal when their operations have the same kinds, shapes, bit widths and immediate values
and take their inputs from the same distances; weights, scales and tables may differ, because they
are data. Inner widths may differ as well: the code is that of the widest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...tokens.graph import (
    Add,
    Attention,
    Input,
    LayerNorm,
    Linear,
    Operation,
    Relu,
    Table,
    Tensor,
    TokenGraph,
)


def inputs(operation: Operation) -> tuple[Tensor, ...]:
    """The tensors that an operation reads."""
    match operation:
        case Input():
            return ()
        case Add(a=a, b=b):
            return a, b
        case Attention(query=q, key=k, value=v):
            return q, k, v
        case _:
            return (operation.input,)


@dataclass(eq=False)
class Block:
    """Operations of one or several equal layers: layers[i][j] is operation j of layer i.

    The code is written for layer 0. `carried` maps tensors that layer 0 reads from before the block
    to the tensors of layer 0 that take their place for the next layer.
    """

    layers: list[list[Operation]]
    carried: dict[Tensor, Tensor]

    @property
    def template(self) -> list[Operation]:
        return self.layers[0]

    def all_of(self, index: int) -> list[Any]:
        """Operation `index` of every layer."""
        return [layer[index] for layer in self.layers]


@dataclass(eq=False)
class Blocks:
    """The whole graph; `alias` maps tensors of further layers to those of the written code."""

    blocks: list[Block]
    alias: dict[Tensor, Tensor]

    def written(self, tensor: Tensor) -> Tensor:
        return self.alias.get(tensor, tensor)

    def widths(self) -> dict[Tensor, int]:
        """The largest width of each written tensor in all layers."""
        result: dict[Tensor, int] = {}
        for block in self.blocks:
            for layer in block.layers:
                for operation in layer:
                    written = self.written(operation.output)
                    result[written] = max(result.get(written, 0), operation.output.width)
        return result


def needed(graph: TokenGraph) -> list[Operation]:
    """The operations that an output depends on."""
    wanted = set(graph.outputs.values())
    result = []
    for operation in reversed(graph.operations):
        if operation.output in wanted or isinstance(operation, Input):
            wanted |= set(inputs(operation))
            result.append(operation)
    return result[::-1]


def find_blocks(graph: TokenGraph) -> Blocks:
    """Cut a graph into what stands before the layers, the layers, and what follows."""
    operations = needed(graph)
    start, size, count = _longest_repeat(operations)
    pieces = [(0, start, 1), (start, size, count), (start + size * count, 0, 1)]
    pieces[2] = (pieces[2][0], len(operations) - pieces[2][0], 1)
    alias: dict[Tensor, Tensor] = {}
    blocks = []
    for first, length, repeats in pieces:
        if length == 0:
            continue
        layers = [operations[first + i * length : first + (i + 1) * length] for i in range(repeats)]
        carried = _carried(layers) if repeats > 1 else {}
        for layer in layers[1:]:
            for written, other in zip(layers[0], layer, strict=True):
                alias[other.output] = written.output
        blocks.append(Block(layers, carried))
    return Blocks(blocks, alias)


def _carried(layers: list[list[Operation]]) -> dict[Tensor, Tensor]:
    own = {operation.output: j for j, operation in enumerate(layers[0])}
    result = {}
    for first, second in zip(layers[0], layers[1], strict=True):
        for outer, inner in zip(inputs(first), inputs(second), strict=True):
            if outer not in own and inner in own:
                result[outer] = inner
    return result


def _longest_repeat(operations: list[Operation]) -> tuple[int, int, int]:
    """(start, size, count) of the equal layers that cover most; count 1 when there are none."""
    kinds = list(_signatures(operations))
    best = (1, len(operations) - 1, 1)
    covered = 0
    for size in range(1, (len(operations) - 1) // 2 + 1):
        for start in range(1, len(operations) - 2 * size + 1):
            count = 1
            while (
                kinds[start + (count - 1) * size : start + count * size]
                == kinds[start + count * size : start + (count + 1) * size]
            ):
                count += 1
            layer = operations[start : start + size]
            whole = any(isinstance(operation, Attention) for operation in layer)
            more = count > 1 and count * size > covered
            if more and whole and _closed(operations, start, size, count):
                best, covered = (start, size, count), count * size
    return best


def _closed(operations: list[Operation], start: int, size: int, count: int) -> bool:
    """Whether what a layer reads from outside comes from the layer before it, and is not read
    later."""
    where = {operation.output: i for i, operation in enumerate(operations)}
    for layer in range(1, count):
        first = start + layer * size
        for operation in operations[first : first + size]:
            if any(where[t] < first - size for t in inputs(operation)):
                return False
    end = start + count * size
    for operation in operations[end:]:
        if any(start <= where[t] < end - size for t in inputs(operation)):
            return False
    before = {t for o in operations[start : start + size] for t in inputs(o)}
    outer = {t for t in before if where[t] < start}
    return not any(t in outer for o in operations[end:] for t in inputs(o))


def _signatures(operations: list[Operation]) -> Iterator[tuple]:
    where = {operation.output: i for i, operation in enumerate(operations)}
    for i, operation in enumerate(operations):
        distances = tuple(i - where[t] for t in inputs(operation))
        free = isinstance(operation, Linear | Table | Relu)
        width = None if free else operation.output.width
        yield (type(operation), width, distances, *_immediates(operation))


def _immediates(operation: Operation) -> tuple:
    match operation:
        case Linear():
            return (operation.matrix.bit_width,)
        case Table():
            return (operation.function,)
        case LayerNorm():
            return (operation.gain,)
        case Attention():
            return (operation.heads, operation.head_size, operation.causal, operation.gain)
        case _:
            return ()
