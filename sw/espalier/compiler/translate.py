"""The graph's operations as units on machine vectors, with the buffers of inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import UnsupportedModelError
from ..spec.config import Config
from ..spec.interface import Kind, Port
from ..spec.numerics import FUNCTIONS, GATE_SCALE
from .allocate import Chip
from .ir import Activation, Graph, Gru, Input, Last, Linear, Output, Value, View
from .lower_gru import CellUnit
from .lower_initial import InitialUnit
from .lower_linear import LinearUnit
from .lower_passes import LoadUnit, PassUnit
from .lowering import Unit
from .vectors import Buffer, Mapping, Piece, Section, Vector, view_mapping


@dataclass(eq=False)
class PortPlan:
    """A port whose registers may still change."""

    name: str
    kind: Kind
    scale: float
    shape: tuple[int, ...]
    batch_axis: int | None
    time_axis: int | None
    positions: np.ndarray
    elements: int
    buffer: Buffer
    optional: bool = False

    def port(self) -> Port:
        return Port(
            name=self.name,
            kind=self.kind,
            scale=self.scale,
            shape=tuple(self.shape),
            batch_axis=self.batch_axis,
            time_axis=self.time_axis,
            positions=tuple(int(p) for p in self.positions),
            elements=self.elements,
            register=self.buffer.register,
            stride_bytes=self.buffer.stride_bytes,
            reverse_register=self.buffer.reverse,
            optional=self.optional,
        )


@dataclass
class Translation:
    """Walks the graph once.

    `values` maps every value of the graph to vectors; `units` are in order of execution; `finals`
    are the once-stores at the end of a run.
    """

    graph: Graph
    chip: Chip
    values: dict[Value, Mapping] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)
    inputs: list[PortPlan] = field(default_factory=list)
    outputs: list[PortPlan] = field(default_factory=list)
    finals: list[tuple[Vector, Section]] = field(default_factory=list)
    scratch: Buffer = field(default_factory=lambda: Buffer("scratch", 0, True, own=True))
    _reverse: set[Vector] = field(default_factory=set)
    read_at_end: list[Buffer] = field(default_factory=list)
    """Buffers of which the last step is read after the loops."""

    @property
    def config(self) -> Config:
        return self.chip.config

    def run(self) -> Translation:
        for operation in self.graph.operations:
            match operation:
                case Input():
                    self._input(operation)
                case Linear():
                    self._linear(operation)
                case Gru():
                    self._gru(operation)
                case Activation():
                    self._activation(operation)
                case Last():
                    self._last(operation)
        for output in self.graph.outputs:
            self._output(output)
        return self

    def _view(self, view: View) -> Mapping:
        return view_mapping(view, self.values)

    def in_scratch(self, vector: Vector) -> Section:
        """The vector's section of the scratch, where it is stored when it is made."""
        if vector.scratch is None:
            vector.scratch = Section(self.scratch, self.scratch.add(self._size(vector)))
            vector.stores.append(vector.scratch)
        return vector.scratch

    def last_of(self, vector: Vector, section: Section) -> Vector:
        """The vector of the last step, loaded from its section after the loops."""
        last = Vector(f"{vector.name} last", vector.elements, vector.scale, vector.native, False)
        self.units.append(LoadUnit(last.name, [], last, False, section, at_end=True))
        if section.buffer not in self.read_at_end:
            self.read_at_end.append(section.buffer)
        return last

    # Inputs and outputs

    def _input(self, operation: Input) -> None:
        value = operation.output
        buffer = Buffer(
            value.name, self.chip.registers.take(f"input {value.name!r}"), value.per_step
        )
        parts = [np.arange(value.elements)] if operation.columns else self._parts(value)
        vectors, owners = [], np.zeros(value.elements, np.int64)
        indices, positions = np.zeros(value.elements, np.int64), np.zeros(value.elements, np.int64)
        for number, part in enumerate(parts):
            vector = Vector(
                value.name,
                len(part),
                value.scale,
                native=operation.columns,
                per_step=value.per_step,
            )
            section = Section(buffer, buffer.add(self._size(vector)))
            owners[part], indices[part] = number, np.arange(len(part))
            positions[part] = section.offset // 2 + indices[part]
            self.units.append(LoadUnit(value.name, [], vector, value.per_step, section))
            vectors.append(vector)
        kind = Kind.COLUMNS if operation.columns else Kind.VALUES
        size = (
            buffer.stride_bytes // 8 * self.config.group
            if operation.columns
            else buffer.stride_bytes // 2
        )
        self.inputs.append(
            PortPlan(
                value.name,
                kind,
                value.scale * (256 if operation.columns else 1),
                operation.shape,
                operation.batch_axis,
                operation.time_axis,
                positions,
                size,
                buffer,
                operation.optional,
            )
        )
        self.values[value] = Mapping(tuple(vectors), owners, indices, (False,) * len(vectors))

    def _parts(self, value: Value) -> list[np.ndarray]:
        """Elements of a 16-bit input that become vectors of their own: initial states, then all
        others."""
        parts, left = [], np.ones(value.elements, bool)
        for operation in self.graph.operations:
            for view in operation.initial if isinstance(operation, Gru) else ():
                if view is not None and view.values == (value,) and left[view.indices].all():
                    parts.append(view.indices)
                    left[view.indices] = False
        return [*parts, np.flatnonzero(left)] if left.any() else parts

    def _size(self, vector: Vector) -> int:
        if vector.native:
            return -(-vector.elements // self.config.group) * 8
        return self.config.chunks(vector.elements) * self.config.vector_lanes * 2

    def _output(self, output: Output) -> None:
        mapping = self._in_units_of(self._view(output.view), output.view.scale)
        per_step = output.time_axis is not None
        buffer = Buffer(output.name, self.chip.registers.take(f"output {output.name!r}"), per_step)
        positions = np.zeros(len(mapping.owners), np.int64)
        sections: dict[Vector, Section] = {}
        for piece in mapping.pieces():
            vector = piece.vector
            if vector not in sections:
                sections[vector] = Section(buffer, buffer.add(self._size(vector)))
                self._store(vector, sections[vector], per_step, output.name, piece.final)
            positions[piece.features] = sections[vector].offset // 2 + piece.indices
        self.outputs.append(
            PortPlan(
                output.name,
                Kind.VALUES,
                output.view.scale,
                output.shape,
                output.batch_axis,
                output.time_axis,
                positions,
                buffer.stride_bytes // 2,
                buffer,
            )
        )

    def _store(
        self, vector: Vector, section: Section, per_step: bool, name: str, final: bool
    ) -> None:
        if not per_step:
            vector.need_memory()
            self.finals.append((vector, section))
        elif final or not vector.per_step:
            raise UnsupportedModelError(
                f"output {name!r} has a time axis, but a part of it ({vector.name}) is the same in "
                "every step; return it as an output of its own"
            )
        else:
            if vector.native:
                vector.need_memory()
            vector.stores.append(section)

    # Operations

    def _linear(self, operation: Linear) -> None:
        value = operation.output
        pieces = self._view(operation.input).pieces()
        vector = self._made(value, pieces)
        self.units.append(
            LinearUnit(value.name, pieces, vector, vector.per_step, operation.parameters)
        )

    def _last(self, operation: Last) -> None:
        """What runs forward leaves the last step on the chip; what runs backward left it in the
        scratch."""
        mapping = self._in_units_of(self._view(operation.input), operation.output.scale)
        vectors = [
            self.last_of(v, self.in_scratch(v)) if v in self._reverse else v
            for v in mapping.vectors
        ]
        self.values[operation.output] = mapping.replace(vectors, True)

    def _made(self, value: Value, pieces: list[Piece]) -> Vector:
        """The vector of a value that is made from pieces."""
        per_step = any(p.vector.per_step and not p.final for p in pieces)
        vector = Vector(value.name, value.elements, value.scale, per_step=per_step)
        self.values[value] = Mapping.of(vector)
        return vector

    def _gru(self, operation: Gru) -> None:
        mapping = self._view(operation.input)
        for layer, cells in enumerate(operation.cells):
            states = []
            for direction, cell in enumerate(cells):
                index = layer * len(cells) + direction
                name = f"{operation.output.name}.l{layer}{'_reverse' * direction}"
                state = Vector(name, cell.hidden_size, GATE_SCALE)
                self._initial(operation, index, state)
                self.units.append(
                    CellUnit(name, mapping.pieces(), state, True, cell, reverse=direction == 1)
                )
                self.values[operation.final[index]] = Mapping.of(state, final=True)
                states.append(Mapping.of(state))
                if direction:
                    self._reverse.add(state)
            mapping = Mapping.join(states)
        self.values[operation.output] = mapping

    def _initial(self, operation: Gru, index: int, state: Vector) -> None:
        view = operation.initial[index]
        if view is None:
            return
        pieces = self._view(view).pieces()
        whole = len(pieces) == 1 and np.array_equal(pieces[0].indices, np.arange(state.elements))
        if not whole or pieces[0].vector.elements != state.elements or pieces[0].vector.per_step:
            raise UnsupportedModelError(
                f"the initial state of {state.name} must be a whole input, a slice of one that "
                "nothing else overlaps, or a layer's whole result that does not depend on time"
            )
        self.units.append(InitialUnit(f"{state.name}.initial", pieces, state, False))

    def _activation(self, operation: Activation) -> None:
        kind, value = operation.kind, operation.output
        mapping, scale = self._view(operation.input), value.scale
        if kind in FUNCTIONS:
            scale = FUNCTIONS[kind][1]
        self.values[value] = self._passes(mapping, kind, scale, value.scale)

    def _in_units_of(self, mapping: Mapping, scale: float) -> Mapping:
        """The mapping with vectors of another scale rescaled."""
        if all(vector.scale == scale for vector in mapping.vectors):
            return mapping
        return self._passes(mapping, "", scale, scale)

    def _passes(
        self, mapping: Mapping, function: str, scale: float, result_scale: float
    ) -> Mapping:
        """The mapping on vectors that passes over its vectors made."""
        vectors = []
        for vector, final in zip(mapping.vectors, mapping.final, strict=True):
            if not function and vector.scale == scale:
                vectors.append(vector)
                continue
            per_step = vector.per_step and not final
            made = Vector(
                f"{function or 'rescale'}({vector.name})",
                vector.elements,
                result_scale,
                per_step=per_step,
            )
            piece = Mapping.of(vector, final).pieces()
            self.units.append(PassUnit(made.name, piece, made, per_step, function, scale))
            vectors.append(made)
        return mapping.replace(vectors)
