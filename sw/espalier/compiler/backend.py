"""The compiler's second half: a graph of integer layers becomes a program for one configuration.

translate   operations -> units on machine vectors, ports (translate, vectors)
stages      which units share a loop over the time steps (stages, layout)
plan        row blocks, products, packed weights, accumulator proof (lower_*, products, packing)
place       addresses of everything on the chip and in the image (layout, allocate, place)
write       instructions in order; waits follow from what they touch (write, schedule, hazards)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..program import Program
from ..spec.config import Config
from ..spec.interface import ENTRIES, Layer, Scratch
from .emit import Assembly
from .ir import Graph
from .layout import Layout, arrange, memory_use
from .lower_gru import CellUnit
from .lower_linear import LinearUnit
from .lowering import Unit
from .products import Product
from .write import write_program


def build(graph: Graph, config: Config, notes: dict[str, Any]) -> Program:
    """The program of `graph`. `notes` is kept and completed with residency, bytes and schedule.

    Raises
    ------
    CapacityError: a size does not fit the configuration; the message names rule and value.
    UnsupportedModelError: vectors are combined in a way that the machine has no layout for.
    """
    layout = arrange(graph, config)
    assembly = write_program(layout)
    if len(assembly.nodes) > config.program_depth:
        layout.prefetch = False
        assembly = write_program(layout)
    code = assembly.encode()
    image = code + b"".join(layout.chip.image.parts)
    return Program(
        config=config,
        image=np.frombuffer(image, np.uint8).copy(),
        instructions=len(assembly.nodes),
        entries=assembly.entries,
        inputs=tuple(plan.port() for plan in layout.translation.inputs),
        outputs=tuple(plan.port() for plan in layout.translation.outputs),
        scratch=scratch(layout),
        layers=tuple(layer for unit in layout.units for layer in layers(unit, config)),
        whole_sequence=any(stage.reverse for stage in layout.stages.loops),
        notes={**notes, **describe(layout, assembly)},
    )


def scratch(layout: Layout) -> tuple[Scratch, ...]:
    buffer = layout.scratch
    if buffer.stride_bytes == 0:
        return ()
    return (
        Scratch(
            register=buffer.register,
            stride_bytes=buffer.stride_bytes,
            reverse_register=buffer.reverse,
        ),
    )


def layers(unit: Unit, config: Config) -> list[Layer]:
    """The unit's weight matrices."""
    if isinstance(unit, LinearUnit):
        matrices = [(unit.name, unit.parameters.matrix, unit.products)]
    elif isinstance(unit, CellUnit):
        state = [p for p in unit.products if p.feed.vector is unit.output]
        other = [p for p in unit.products if p.feed.vector is not unit.output]
        if unit.source is not None:
            other = [product for tile in unit.source.tiles for product in tile.products]
        matrices = [
            (f"{unit.name}.weight_ih", unit.cell.weight_ih, other),
            (f"{unit.name}.weight_hh", unit.cell.weight_hh, state),
        ]
    else:
        return []
    return [
        Layer(
            name=name,
            rows=matrix.weight.shape[0],
            columns=matrix.weight.shape[1],
            bit_width=matrix.bit_width,
            kept=int(np.count_nonzero(matrix.weight)),
            entries=entries(products, config),
            per_step=unit.per_step,
        )
        for name, matrix, products in matrices
    ]


def entries(products: list[Product], config: Config) -> int:
    return sum(int(product.packed.lengths.sum()) for product in products) * config.lanes


def describe(layout: Layout, assembly: Assembly) -> dict[str, Any]:
    """What `inspect` shows beside the program."""
    residency = "resident"
    if not layout.resident:
        streamed = any(stage.streamed for stage in layout.stages.all)
        residency = "streamed" if streamed else "loaded every run"
    program = [len(assembly.nodes), assembly.config.program_depth]
    return {
        "residency": residency,
        "memory": {**memory_use(layout), "program": program},
        "bytes": {entry: assembly.traffic(entry) for entry in ENTRIES},
        "schedule": [[unit.name for unit in stage.units] for stage in layout.stages.loops],
    }
