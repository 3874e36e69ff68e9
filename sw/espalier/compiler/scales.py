"""The scales of user inputs, and of what keeps its input's scale.

- An input that feeds products only, all of one input scale, arrives as column inputs: its value
  has the scale input_scale / 256.
- An input that is a GRU's initial state and nothing else arrives as 16-bit values of 2^-15, and may
  be left out.
- Any other input arrives as 16-bit values: of the largest input scale of its products / 256
  (products of smaller scales rescale it), or, where it feeds no product, of the scale that the
  example inputs just fill.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..spec.numerics import COLUMN_MAX, GATE_SCALE
from .ir import Activation, Graph, Gru, Input, Last, Linear, Value, View

COLUMN_UNITS = 256
"""16-bit units in a column input's unit."""


def resolve(graph: Graph, examples: Mapping[str, float]) -> None:
    """Set the scales of inputs, relu and last values; `examples`: largest magnitudes of inputs."""
    for operation in graph.operations:
        match operation:
            case Input():
                _input(graph, operation, examples[operation.output.name])
            case Activation(kind="relu") | Last():
                operation.output.scale = operation.input.scale


def _input(graph: Graph, operation: Input, largest: float) -> None:
    value = operation.output
    products = _product_scales(graph, value)
    initial = any(_reads(view, value) for view in _initial_views(graph))
    other = any(_reads(view, value) for view in _value_views(graph))
    if products:
        operation.columns = len(products) == 1 and not initial and not other
        value.scale = max(products) / COLUMN_UNITS
    elif initial and not other:
        value.scale, operation.optional = GATE_SCALE, True
    else:
        value.scale = largest / (COLUMN_MAX * COLUMN_UNITS) or GATE_SCALE


def _product_scales(graph: Graph, value: Value) -> set[float]:
    scales = set()
    for operation in graph.operations:
        match operation:
            case Linear() if _reads(operation.input, value):
                scales.add(operation.parameters.input_scale)
            case Gru() if _reads(operation.input, value):
                scales.update(cell.input_scale for cell in operation.cells[0])
    return scales


def _initial_views(graph: Graph) -> list[View]:
    grus = [operation for operation in graph.operations if isinstance(operation, Gru)]
    return [view for gru in grus for view in gru.initial if view is not None]


def _value_views(graph: Graph) -> list[View]:
    """Views of which the 16-bit values themselves are used."""
    elementwise = [
        operation.input
        for operation in graph.operations
        if isinstance(operation, Activation | Last)
    ]
    return elementwise + [output.view for output in graph.outputs]


def _reads(view: View, value: Value) -> bool:
    return any(candidate is value for candidate in view.values)
