"""A token graph becomes a program: its blocks, passes, data and instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import UnsupportedModelError
from ...program import Program
from ...spec.config import BEAT_BYTES, Config
from ...spec.interface import Kind, Layer, Port
from ...spec.tokens import Register, TokenPlan
from ...tokens.graph import Input, Linear, TokenGraph
from ...tokens.host_file import Host
from ..emit import Assembly
from .attention import AttentionPass
from .context import Context
from .head_descriptors import key_descriptors
from .passes import Piece, load_pieces, pieces, write_pass
from .placement import stored_bytes
from .registers import IMAGE
from .residence import Pass, settle
from .split import split_passes
from .tokenpass import TokenPass


def build_tokens(
    graph: TokenGraph,
    config: Config,
    *,
    most_tokens: int,
    notes: dict[str, Any],
    host: Host | None = None,
) -> Program:
    """The program of a transformer for sequences of at most `most_tokens`.

    Raises
    ------
    CapacityError: a size does not fit the configuration; the message names rule and value.
    UnsupportedModelError: tensors are combined in a way that the machine has no layout for.
    """
    if len(set(graph.outputs.values())) != 1:
        names = ", ".join(graph.outputs)
        raise UnsupportedModelError(
            f"all outputs must be made of one tensor of tokens, these are of several: {names}"
        )
    context = Context.of(graph, config, most_tokens)
    passes = plan(context)
    write(context, passes, Assembly(config))
    context.stride = context.record.size
    assembly = shortest(context, passes)
    data, sets = image(context, passes)
    code = assembly.encode()
    return Program(
        config=config,
        image=np.frombuffer(code + b"".join(data), np.uint8).copy(),
        instructions=len(assembly.nodes),
        entries=assembly.entries,
        inputs=(input_port(context),),
        outputs=(output_port(context),),
        layers=layers(context, passes),
        whole_sequence=True,
        host=host,
        tokens=token_plan(context, len(code) + sum(len(d) for d in data[:-1]), sets),
        notes={**notes, "passes": describe(passes)},
    )


def plan(context: Context) -> list[list[Pass]]:
    """The passes of every block."""
    result: list[list[Pass]] = []
    for number in range(len(context.blocks.blocks)):
        block: list[Pass] = []
        for one in split_passes(context, number):
            block.append(AttentionPass(context, number, one) if isinstance(one, int) else one)
        result.append(block)
    output = next(iter(context.graph.outputs.values()))
    last = result[-1][-1]
    if not isinstance(last, TokenPass) or last.tiles > 1 or len(last.block.layers) > 1:
        last = TokenPass(context, len(result) - 1, [])
        result.append([last])
    last.final = context.blocks.written(output)
    last.check()
    settle(result, [count(context, block) for block in result])
    return result


def write(context: Context, passes: list[list[Pass]], assembly: Assembly) -> None:
    """The entries; setup and reset have nothing to do, because every run loads what it needs."""
    for entry in ("setup", "reset"):
        assembly.entry(entry)
        assembly.halt()
    assembly.entry("run")
    assembly.set(IMAGE, 0)
    for number, block in enumerate(passes):
        repeats = count(context, block)
        if repeats > 1:
            load_pieces(assembly, first_pieces(block[0]), early=True)
            with assembly.loop(count=repeats):
                write_block(context, passes, number, assembly)
        else:
            write_block(context, passes, number, assembly)
    assembly.halt()


def shortest(context: Context, passes: list[list[Pass]]) -> Assembly:
    """The instructions; where they are too many, first tiled passes do with one token a loop body,
    then attention with one buffer, then all passes with one token."""
    tokens = [one for block in passes for one in block if isinstance(one, TokenPass)]
    tiled = [one for one in tokens if one.tiles > 1]
    for single, alternate in (([], True), (tiled, True), (tiled, False), (tokens, False)):
        for one in single:
            one.paired = False
        if not alternate:
            context.heads = {
                operation: replace(layout, alternate=False)
                for operation, layout in context.heads.items()
            }
            settle(passes, [count(context, block) for block in passes])
        assembly = Assembly(context.config)
        write(context, passes, assembly)
        if len(assembly.nodes) <= context.config.program_depth:
            break
    return assembly


def count(context: Context, block: list[Pass]) -> int:
    """How often a block's code runs."""
    first = block[0]
    if isinstance(first, TokenPass) and not first.indices:
        return 1
    return len(context.blocks.blocks[first.number].layers)


def write_block(
    context: Context, passes: list[list[Pass]], number: int, assembly: Assembly
) -> None:
    """All passes of a block, each with what the one behind it loads early."""
    block, after = passes[number], passes[number + 1 : number + 2]
    if count(context, block) > 1:
        after = [block]
    elif after and count(context, after[0]) > 1:
        after = []
    behind = [*block[1:], *(other[0] for other in after), None]
    for one, later in zip(block, behind, strict=False):
        following = first_pieces(later)
        if isinstance(one, TokenPass):
            write_pass(one, assembly, following)
        else:
            one.write(assembly, following)
    size = context.cache_bytes[number] if number < len(context.cache_bytes) else 0
    if size:
        assembly.set(int(Register.ROW), size, int(Register.ROW))


def first_pieces(one: Pass | None) -> list[Piece]:
    """What the first tile of a pass brings, in the first layer."""
    return pieces(one, 0, 0) if isinstance(one, TokenPass) else []


def image(context: Context, passes: list[list[Pass]]) -> tuple[list[bytes], int]:
    """The data in the order in which the program walks through it, then the sets of key
    descriptors; and the size of a set.

    The last layer of a repeated block loads the early pieces of one more: zeros at the end see to
    it that there is something to load.
    """
    data: list[bytes] = []
    beyond = 0
    for block in passes:
        for layer in range(count(context, block)):
            for one in block:
                if isinstance(one, AttentionPass):
                    data += [piece.data for piece in one.pieces(layer)]
                else:
                    for tile in range(one.tiles):
                        data += [piece.data for piece in pieces(one, layer, tile)]
        if count(context, block) > 1:
            early = sum(len(p.data) for p in first_pieces(block[0]) if p.early)
            beyond = max(beyond, sum(len(part) for part in data) + early)
    data = [part + bytes(-len(part) % BEAT_BYTES) for part in data]
    layout = next(iter(context.heads.values()), None)
    sets: list[bytes] = []
    if layout is not None:
        lanes = context.config.lanes
        ends = range(lanes, layout.most_tokens + lanes, lanes)
        sets = [key_descriptors(layout, tokens) for tokens in ends]
    last = b"".join(sets)
    padding = bytes(max(beyond - len(last) - sum(len(part) for part in data), 0))
    return [*data, last + padding], len(sets[0]) if sets else 0


def token_plan(context: Context, sets: int, set_bytes: int) -> TokenPlan:
    layout = next(iter(context.heads.values()), None)
    cache = sum(
        size * len(block.layers)
        for size, block in zip(context.cache_bytes, context.blocks.blocks, strict=True)
    )
    attention = [o.causal for o in context.heads]
    return TokenPlan(
        most_tokens=context.most_tokens,
        record_bytes=context.record.size,
        row_bytes=layout.token_bytes if layout else 0,
        cache_bytes=cache,
        sets=sets,
        set_bytes=set_bytes,
        set_tokens=context.config.lanes,
        causal=all(attention),
    )


def input_port(context: Context) -> Port:
    operation = context.graph.operations[0]
    assert isinstance(operation, Input)
    return _port(context, "tokens", operation.output, int(Register.INPUT))


def output_port(context: Context) -> Port:
    name, tensor = next(iter(context.graph.outputs.items()))
    return _port(context, name, context.blocks.written(tensor), int(Register.OUTPUT), tensor.scale)


def _port(context: Context, name: str, tensor: Any, register: int, scale: float = 0) -> Port:
    shape = context.shape(tensor)
    return Port(
        name=name,
        kind=Kind.VALUES,
        scale=scale or tensor.scale,
        shape=(-1, -1, tensor.width),
        batch_axis=0,
        time_axis=1,
        positions=tuple(int(p) for p in shape.positions),
        elements=shape.elements,
        register=register,
        stride_bytes=stored_bytes(context.config, shape.elements, columns=False),
    )


def layers(context: Context, passes: list[list[Pass]]) -> tuple[Layer, ...]:
    """Every weight matrix of every layer."""
    result = []
    for block in passes:
        for layer in range(count(context, block)):
            for one in block:
                if not isinstance(one, TokenPass):
                    continue
                for chain in one.chains:
                    if isinstance(chain.head, Linear):
                        result.append(_layer(context, one, chain, layer))
    return tuple(result)


def _layer(context: Context, one: TokenPass, chain: Any, layer: int) -> Layer:
    operation = one.block.layers[layer][chain.indices[0]]
    weight = operation.matrix.weight
    entries = sum(int(p.lengths.sum()) for b in chain.blocks for p in b.packed[layer])
    return Layer(
        name=operation.name,
        rows=weight.shape[0],
        columns=weight.shape[1],
        bit_width=operation.matrix.bit_width,
        kept=int(np.count_nonzero(weight)),
        entries=entries * context.config.lanes,
    )


def describe(passes: list[list[Pass]]) -> list[list[str]]:
    """What every loop over the tokens does, for `inspect`."""
    return [[_name(one) for one in block] for block in passes]


def _name(one: Pass) -> str:
    if isinstance(one, AttentionPass):
        layout = one.layout
        return f"attention: {layout.groups} x {layout.together} heads"
    words = [type(o).__name__.lower() for chain in one.chains for o in chain.operations]
    tiles = f" in {one.tiles} tiles" if one.tiles > 1 else ""
    return (", ".join(words) or "output") + tiles
