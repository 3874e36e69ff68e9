"""A pass as instructions: load its data, then loop over the tokens, two at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import CapacityError
from ...spec.config import BEAT_BYTES, ITEM_BYTES
from ...spec.memory import TABLE_ENTRY, Memory
from ...spec.tokens import Register
from ..allocate import pack_words
from ..emit import Assembly
from .body import Body
from .context import Context, Use
from .order import Item, schedule
from .pipeline import Pipeline, pipeline
from .registers import CURSOR, IMAGE, PLACE, SPARE, TILE
from .tokenpass import TokenPass


@dataclass(frozen=True)
class Piece:
    """What one LOAD brings: `early` ones while the pass before runs, others at a pass's head."""

    memory: Memory
    count: int
    data: bytes
    address: int = 0
    early: bool = False


def load_pieces(assembly: Assembly, pieces: Sequence[Piece], *, early: bool = False) -> None:
    """Load a pass's pieces, which lie one after the other where the image register points, and move
    that behind them; or (`early`) the early ones only, and move nothing."""
    size = sum(len(piece.data) for piece in pieces)
    chosen = [number for number, piece in enumerate(pieces) if piece.early == early]
    offset = 0
    for number, piece in enumerate(pieces):
        if number in chosen:
            last = number == chosen[-1] and not early
            assembly.load_image(
                piece.memory,
                piece.address,
                piece.count,
                offset,
                register=IMAGE,
                increment=size if last else 0,
            )
        offset += len(piece.data)
    if size and not chosen and not early:
        assembly.set(IMAGE, size, IMAGE)


def pieces(plan: TokenPass, layer: int, tile: int) -> list[Piece]:
    """The data of one layer and tile, in the order of their loads."""
    data, config = plan.data, plan.context.config
    result = []
    for part in [*plan.early, *plan.late]:
        first, end = part
        words = data.weights(layer, tile, part)
        result.append(Piece(Memory.WEIGHTS, end - first, words, first, part in plan.early))
    if data.blocks:
        result.append(Piece(Memory.DESCRIPTORS, data.groups, data.descriptors(layer, tile)))
    if data.parameters:
        words = np.concatenate(
            [v[layer][min(tile, len(v[layer]) - 1)].words(config) for v in data.parameters]
        )
        result.append(Piece(Memory.PARAMETERS, len(words), words.astype("<u8").tobytes()))
    if data.constants:
        values = np.concatenate([vector[layer] for vector in data.constants])
        result.append(Piece(Memory.VECTOR, len(values) // 4, values.astype("<i2").tobytes()))
    if data.tables:
        entries = [entry for _, layers in data.tables for entry in layers[layer]]
        words = pack_words(TABLE_ENTRY, [{"base": b, "slope": s} for b, s in entries])
        result.append(Piece(Memory.TABLES, len(words), words.astype("<u8").tobytes()))
    return [replace(p, data=p.data + bytes(-len(p.data) % BEAT_BYTES)) for p in result]


def write_pass(plan: TokenPass, assembly: Assembly, following: list[Piece]) -> None:
    """The whole pass, all its tiles. `following` are the pieces of the pass behind it."""
    if plan.tiles == 1:
        _write_tile(plan, assembly, following)
        return
    context = plan.context
    start, offset, stride = _tile_place(plan, context)
    assembly.set(TILE, offset, start)
    with assembly.loop(count=plan.tiles):
        _write_tile(plan, assembly, [])
        assembly.set(TILE, stride, TILE)


def _tile_place(plan: TokenPass, context: Context) -> tuple[int, int, int]:
    """(base register, offset of tile 0, distance of two tiles) of a tiled linear layer's output."""
    tensor = plan.chains[0].output
    uses = [use for use in Use if plan.stored(tensor, use)]
    if len(uses) != 1:
        raise CapacityError(
            f"{plan.chains[0].head.name} is too large to stay on the chip and its result is used "
            "in two ways; use a lower density, fewer bits or a larger configuration"
        )
    home, elements = context.home(tensor), context.shape(tensor).elements
    rows = elements // plan.tiles
    size = rows // context.config.group * ITEM_BYTES
    if uses[0] is Use.CACHE:
        return int(Register.ROW), context.regions[home], size
    columns = uses[0] is Use.COLUMNS
    section = context.record.section(home, elements, columns=columns)
    return int(Register.RECORD), section.offset, size if columns else rows * 2


def _write_tile(plan: TokenPass, assembly: Assembly, following: list[Piece]) -> None:
    load_pieces(assembly, pieces(plan, 0, 0))
    load_pieces(assembly, following, early=True)
    body = Body(plan, assembly)
    first = body.loads(0, 0)
    if not plan.paired:
        _write_single(body, assembly, schedule([*first, *body.token(0, 0)[len(first) :]]).items)
        return
    odd = body.token(0, 0)[len(first) :]
    loop = _pipeline(plan, body)
    _set_cursors(body, assembly)
    _append(assembly, first)
    with assembly.loop(register=int(Register.PAIRS)):
        _append(assembly, loop.body)
        for register, stride in body.strides.items():
            assembly.set(register, 2 * stride, register)
    for rest in loop.finish():
        _append(assembly, rest)
    with assembly.loop(register=int(Register.ODD)):
        _append(assembly, schedule(odd).items)


def _pipeline(plan: TokenPass, body: Body) -> Pipeline:
    """The loop of pairs; searched for once, the program is written more than once."""

    def pair(back: int) -> list[Item]:
        return [*body.token(0, back), *body.token(1, 1 + back)]

    if plan.order is None:
        plan.order = pipeline(pair, plan.context.config, fixed=_fixed).order
    return Pipeline(pair, plan.order)


def _fixed(item: Item) -> bool:
    """Whether an item reads or stores anywhere but in the record, which has rows before the first
    token's."""
    registers = {node.fields.get("register", CURSOR) for node in item.nodes}
    registers |= {node.fields["source"] for node in item.nodes if node.fields.get("use_source")}
    return not registers <= {CURSOR, SPARE}


def _write_single(body: Body, assembly: Assembly, items: list[Item]) -> None:
    _set_cursors(body, assembly)
    with assembly.loop(register=int(Register.TOKENS)):
        _append(assembly, items)
        for register, stride in body.strides.items():
            assembly.set(register, stride, register)


def _set_cursors(body: Body, assembly: Assembly) -> None:
    assembly.set(CURSOR, 0, int(Register.RECORD))
    if PLACE in body.strides:
        assembly.set(PLACE, 0, TILE if body.token_pass.tiles > 1 else int(Register.ROW))


def _append(assembly: Assembly, items: list[Item]) -> None:
    for item in items:
        assembly.nodes.extend(item.nodes)
