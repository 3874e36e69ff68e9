"""What is chosen for a transformer's integers, and the options of choosing.

A value may exist in two forms. Its `main` one has the scale of the residual stream that it belongs
to, or one that its range needs; its `column` one, for products, may be finer, clip outliers, and
have its channels divided by factors that the products' weights take over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from . import float_graph as fg
from .compute import Parameters, of
from .float_graph import Value
from .outliers import Copies


@dataclass(eq=False)
class Plan:
    """main, column: element scales by value; smooth: factors [width] of columns.

    divided: factors [width] of attention's values and context, which exist divided by them.
    shift: what is added to the biases [width] of linear layers, by their result.
    gains: of LayerNorms and attentions, by their result.
    copies: of loud neurons, by the activation's input and by its result.
    """

    main: dict[Value, float] = field(default_factory=dict)
    column: dict[Value, float] = field(default_factory=dict)
    smooth: dict[Value, Tensor] = field(default_factory=dict)
    gains: dict[Value, int] = field(default_factory=dict)
    copies: dict[Value, Copies] = field(default_factory=dict)
    divided: dict[Value, Tensor] = field(default_factory=dict)
    shift: dict[Value, Tensor] = field(default_factory=dict)


def bias_of(operation: fg.Linear, parameters: Parameters, plan: Plan) -> Tensor:
    """A linear layer's bias [width] with its correction."""
    bias = of(operation.bias, parameters)
    weight = parameters[operation.weight.parameter]
    bias = weight.new_zeros(operation.output.width) if bias is None else bias
    return bias + plan.shift[operation.output] if operation.output in plan.shift else bias


@dataclass(frozen=True)
class Options:
    """How ranges of products' inputs are chosen.

    activation_range: "max", "mse" for the least squared error, or the percentile of elements that
        are not clipped. Queries, keys and values are never clipped.
    smooth: whether a LayerNorm's loud channels are folded into weights where that helps; after a
        residual sum it takes a second pass of the LayerNorm.
    copies: how many neurons may be added to a layer before an activation, for its loud ones.
    even: whether the channels of attention's values are made even where that helps.
    correct: whether biases take back what rounding shifts on the samples.
    round: whether weights are rounded to the samples, each column's error made up for by others;
        with `correct` only.
    """

    activation_range: str | float = "mse"
    smooth: bool = True
    copies: int = 8
    even: bool = True
    correct: bool = True
    round: bool = True
