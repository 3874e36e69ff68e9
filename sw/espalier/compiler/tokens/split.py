"""A block's operations cut into passes as long as they fit, and into tiles what does not fit."""

from __future__ import annotations

import math

from ...errors import CapacityError
from ...spec.config import SLOTS
from ...tokens.graph import Attention, Linear, Operation, Tensor
from .blocks import inputs
from .context import Context
from .tokenpass import TokenPass


def split_passes(context: Context, number: int) -> list[TokenPass | int]:
    """A block's operations as passes as long as they fit; an int is an attention's index."""
    block = context.blocks.blocks[number]
    result: list[TokenPass | int] = []
    current: list[int] = []

    def close() -> None:
        if current:
            result.append(_fitting(context, number, list(current)))
            current.clear()

    for index, operation in enumerate(block.template):
        if isinstance(operation, Attention):
            close()
            result.append(index)
            continue
        if current and (
            _chained(context, block.template, current, operation)
            or not _fits(context, number, [*current, index])
        ):
            close()
        current.append(index)
        if not _fits(context, number, current):
            close()
    close()
    return result


def _chained(
    context: Context, template: list[Operation], current: list[int], operation: Operation
) -> bool:
    """Whether a linear layer depends on another one of the pass. It would wait for all that lies
    between them in every token; in a pass of its own it waits for nothing."""
    if not isinstance(operation, Linear):
        return False
    late: set[Tensor] = set()
    for i in current:
        one = template[i]
        if isinstance(one, Linear) or late & {context.blocks.written(t) for t in inputs(one)}:
            late.add(one.output)
    return context.blocks.written(operation.input) in late


def _fits(context: Context, number: int, indices: list[int]) -> bool:
    try:
        TokenPass(context, number, indices).prepare()
    except CapacityError:
        return False
    return True


def _fitting(context: Context, number: int, indices: list[int]) -> TokenPass:
    """The pass, in tiles if it is one linear layer that is too large. Raises CapacityError."""
    single = TokenPass(context, number, indices)
    try:
        single.prepare()
        return single
    except CapacityError:
        operation = context.blocks.blocks[number].template[indices[0]]
        if len(indices) > 1 or not isinstance(operation, Linear):
            raise
    return _tiled(context, number, indices, operation)


def _tiled(context: Context, number: int, indices: list[int], operation: Linear) -> TokenPass:
    elements = context.shape(operation.output).elements
    config, planes = context.config, operation.matrix.planes
    unit = math.lcm(config.lanes, 2 * config.group, config.vector_lanes)
    unit = context.padded.get(context.home(operation.output), unit)
    failure: CapacityError | None = None
    for tiles in range(2, elements // unit + 1):
        height = elements // tiles // config.lanes * planes
        if elements % (tiles * unit) or height > SLOTS:
            continue
        tiled = TokenPass(context, number, indices, tiles)
        try:
            tiled.prepare()
            return tiled
        except CapacityError as error:
            failure = error
    raise failure or CapacityError(
        f"{operation.name}: its {elements} rows cannot be cut into tiles of {unit} rows that fit "
        f"{config.name}; use a lower density or fewer bits"
    )
