"""`import_tokens`: from an unmodified PyTorch model to a `FloatGraph`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, UnsupportedModelError
from . import float_graph as fg
from . import operators, samples
from .builder import Builder
from .compute import compute, result
from .export import export, output_names
from .float_graph import FloatGraph, MaskInput
from .inputs import Inputs, describe
from .labels import Labels, LayoutError
from .traced import Known, Traced
from .walk import Walk

SAMPLES, TOKENS, PADDING = (2, 3), (7, 9), 3
"""Of the made-up batch with which a graph is walked: the first that the example does not have."""
AGREEMENT = 2e-3
"""Largest difference of the imported graph from the model, as a share of the largest result."""


def is_transformer(model: nn.Module) -> bool:
    """Whether a model is imported token by token: it has attention, LayerNorms or embeddings, and
    no recurrence."""
    modules = list(model.modules())
    kinds = nn.MultiheadAttention, nn.LayerNorm, nn.Embedding
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    return not recurrent and any(isinstance(module, kinds) for module in modules)


def import_tokens(
    model: nn.Module, args: Any = (), kwargs: Mapping[str, Any] | None = None
) -> FloatGraph:
    """The operations on tokens of an unmodified model in evaluation mode.

    Arguments
    ---------
    args, kwargs: example inputs of the model's forward: a tensor or a tuple, and names. The batch
        size and the number of tokens do not matter; padding must be on the right.

    Raises
    ------
    UnsupportedModelError: lists everything that cannot be compiled, with the user's lines.
    InputError: wrong arguments.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, not a {type(model).__name__}")
    if model.training:
        raise UnsupportedModelError("the model is in training mode; call model.eval() first")
    arguments = bind(model, args, kwargs)
    _check_example(model, arguments)
    refused: list[UnsupportedModelError] = []
    for inputs in describe(arguments):
        try:
            return _import(model, arguments, inputs)
        except UnsupportedModelError as error:
            refused.append(error)
    raise refused[0]


def _check_example(model: nn.Module, arguments: dict[str, Any]) -> None:
    """Raise InputError for an example that the model itself does not take."""
    shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in arguments.items() if hasattr(v, "shape"))
    try:
        with torch.no_grad():
            model(**arguments)
    except (IndexError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"the model itself fails on the example ({type(error).__name__}: {error}); look at "
            f"indices, lengths and the shapes of masks: {shapes}"
        ) from None


def bind(model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of the model's forward by name; caches of a decoder are switched off."""
    args = (args,) if isinstance(args, Tensor) else tuple(args)
    kwargs = dict(kwargs or {})
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"the arguments do not fit {type(model).__name__}.forward: {error}"
        ) from None
    named = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL and name in named:
            raise InputError(f"arguments must have names; *{name} has none")
    if "use_cache" in signature.parameters:
        named["use_cache"] = False
    if "is_causal" in signature.parameters:
        named.setdefault("is_causal", is_causal(named.get("mask", named.get("src_mask"))))
    if not any(isinstance(value, Tensor) for value in named.values()):
        raise InputError("give example inputs: args or kwargs must have a tensor")
    return named


def is_causal(mask: Any) -> bool:
    """Whether an attention mask is causal, which torch would look up in its values."""
    try:
        return isinstance(mask, Tensor) and mask.dim() == 2 and samples.causal(mask)
    except LayoutError:
        return False


def _import(model: nn.Module, arguments: dict[str, Any], inputs: Inputs) -> FloatGraph:
    program = export(model, arguments, inputs)
    attempts = [False, True] if inputs.masks else [True]
    errors = []
    for kept in sorted(attempts, key=lambda kept: kept != inputs.likely_kept):
        walk = _walk(program, inputs, kept)
        if not walk.problems:
            graph = walk.builder.graph
            _finish(graph, inputs, kept)
            check(model, graph, arguments, inputs)
            return graph
        errors.append(UnsupportedModelError(_listed(walk.problems)))
    raise errors[0]


def _walk(program: torch.export.ExportedProgram, inputs: Inputs, kept: bool) -> Walk:
    lengths, tokens = _lengths(inputs)
    builder = Builder(Labels(len(lengths), tokens), lengths)
    builder.graph.axes = dict(inputs.axes)
    try:
        made_up = samples.make(inputs, lengths, tokens, kept)
    except LayoutError as error:
        raise UnsupportedModelError(str(error)) from None
    builder.graph_inputs = {name: made_up[name] for name in inputs.integers}
    placeholders = dict(_constants(program, builder.graph))
    user_inputs = program.graph_signature.user_inputs
    for placeholder, name in zip(user_inputs, inputs.order, strict=True):
        if name in inputs.floats:
            placeholders[placeholder] = Traced(builder.given(name, made_up[name].shape))
        elif name in made_up:
            placeholders[placeholder] = Known(
                made_up[name], depends=frozenset({name} - set(inputs.static))
            )
        else:
            placeholders[placeholder] = None
    walk = Walk(builder, placeholders, output_names(program))
    with torch.no_grad():
        walk.run(list(program.graph.nodes))
    return walk


def _lengths(inputs: Inputs) -> tuple[tuple[int, ...], int]:
    """(tokens of each made-up sample, tokens that they are padded to)."""
    name, example = next(iter({**inputs.integers, **inputs.floats}.items()))
    batch, axis = inputs.axes[name]
    tokens = next(n for n in TOKENS if n != example.shape[axis])
    last = tokens - PADDING if inputs.masks else tokens
    if batch is None:
        return (last,), tokens
    samples = next(n for n in SAMPLES if n != example.shape[batch])
    return (tokens,) * (samples - 1) + (last,), tokens


def _constants(
    program: torch.export.ExportedProgram, graph: FloatGraph
) -> Iterator[tuple[str, Known]]:
    """Parameters, buffers and the tensors that the model's code holds, by placeholder name."""
    signature = program.graph_signature
    state = {**program.state_dict, **program.constants}
    sources = (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    )
    for placeholder, target in (item for each in sources for item in each.items()):
        value = state[target].detach()
        if not value.is_floating_point():
            yield placeholder, Known(value)
            continue
        graph.parameters[target] = value
        places = torch.arange(value.numel()).view(value.shape)
        yield placeholder, Known(value, target, places)


def _finish(graph: FloatGraph, inputs: Inputs, kept: bool) -> None:
    """Drop what no output needs, and let the host do a LayerNorm that only its sum goes through."""
    needed = {output.value for output in graph.outputs.values()}
    operations: list[fg.Operation] = []
    for operation in reversed(graph.operations):
        if operation.output in needed:
            operations.append(operation)
            needed.update(fg.inputs_of(operation))
    graph.operations = operations[::-1]
    embeds = [each for each in operations if isinstance(each, fg.Embed)]
    if not embeds or not graph.outputs:
        raise UnsupportedModelError("the model's results do not depend on its inputs")
    if len(embeds) > 1:
        raise UnsupportedModelError(
            "the tokens must come from one sum of embeddings; there are "
            f"{len(embeds)}, at " + "; ".join(e.output.source for e in embeds)
        )
    graph.operations.remove(embeds[0])
    graph.operations.insert(0, embeds[0])
    _host_norm(graph)
    used = set(_used_parameters(graph))
    graph.parameters = {k: v for k, v in graph.parameters.items() if k in used}
    graph.inputs = [*inputs.integers, *inputs.floats, *inputs.masks]
    graph.integers = list(inputs.integers)
    graph.mask = MaskInput(inputs.masks[0], kept) if inputs.masks else None
    graph.most_tokens = min(
        (len(t.rows.places) - t.offset for t in graph.embed.tables if t.index == "position"),
        default=0,
    )


def _host_norm(graph: FloatGraph) -> None:
    embed = graph.embed
    users = fg.users(graph, embed.output)
    if (
        len(users) == 1
        and isinstance(users[0], fg.LayerNorm)
        and not embed.given
        and all(output.value is not embed.output for output in graph.outputs.values())
    ):
        graph.host_norm = users[0]
        graph.operations.remove(users[0])
        embed.output = users[0].output


def _used_parameters(graph: FloatGraph) -> Iterator[str]:
    def names(*references: fg.Reference | None) -> Iterator[str]:
        yield from (reference.parameter for reference in references if reference is not None)

    for operation in [*graph.operations, *([graph.host_norm] if graph.host_norm else [])]:
        if isinstance(operation, fg.Linear | fg.LayerNorm):
            yield from names(operation.weight, operation.bias)
        elif isinstance(operation, fg.Embed):
            yield from names(*(table.rows for table in operation.tables))
    for output in graph.outputs.values():
        for layer in output.layers:
            yield from names(layer.weight, layer.bias)


def check(model: nn.Module, graph: FloatGraph, arguments: dict[str, Any], inputs: Inputs) -> None:
    """Compare the graph with the model on the example: what was misread must not be compiled."""
    with torch.no_grad():
        expected = output_tensors(model(**arguments), graph)
        for number, sample in enumerate(inputs.split(arguments, graph.mask)):
            values = compute(graph, sample)
            for name, output in graph.outputs.items():
                mine = result(output, values, graph.parameters)
                theirs = pick(expected[name], output, number, len(mine))
                difference = float((mine - theirs).abs().max())
                bound = AGREEMENT * max(float(theirs.abs().max()), 1e-3)
                if not difference <= bound:
                    raise UnsupportedModelError(
                        f"the model computes {name!r} in a way that was not understood: the "
                        f"imported graph differs by {difference:.2g} on sample {number} of the "
                        "example; please report it"
                    )


def output_tensors(results: Any, graph: FloatGraph) -> dict[str, Tensor]:
    """A model's results by the names of the graph's outputs."""
    leaves, specification = torch.utils._pytree.tree_flatten(results)
    names = output_names(specification)
    found = dict(zip(names, leaves, strict=True))
    return {name: found[name] for name in graph.outputs}


def pick(tensor: Tensor, output: fg.Output, sample: int, tokens: int) -> Tensor:
    """One sample of a model's result, its first `tokens` tokens."""
    if output.first:
        return tensor[sample] if tensor.dim() > 1 else tensor
    batch, _ = output.axes
    moved = tensor if batch is None else tensor.select(batch, sample)
    return moved.narrow(0, 0, tokens)


def _listed(problems: list[str]) -> str:
    listed = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
    return f"the model cannot be compiled:\n{listed}\nsupported are: {operators.SUPPORTED}"
