"""`espalier.compile` for transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import CapacityError, InputError
from ...program import Program
from ...spec.config import Config
from ...tokens.graph import Attention, TokenGraph
from ...tokens.host_file import Host
from ...transformer import QuantTransformer, quantize
from .build import build_tokens
from .placement import HeadLayout

LONGEST = 1024
"""Tokens of a model that sets no limit itself, before the configuration does."""


def compile_tokens(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    *,
    max_length: int | None,
    config: Config,
) -> Program:
    """The program of a transformer; one that is not quantized yet is, densely at 8 bits with `args`
    as calibration."""
    notes: dict[str, Any] = {"quantized_by_compile": not isinstance(model, QuantTransformer)}
    if not isinstance(model, QuantTransformer):
        model = quantize(model, () if args is None else args, kwargs)
    graph = model.graph()
    tokens = most_tokens(graph, max_length, config)
    host = Host(model.host_input(), model.host_outputs())
    host.input.most_tokens = tokens
    return build_tokens(
        graph, config, most_tokens=tokens, notes={**notes, "max_length": tokens}, host=host
    )


def most_tokens(graph: TokenGraph, max_length: int | None, config: Config) -> int:
    """The longest sequence: what was asked for, else what model and configuration allow.

    Raises InputError when more is asked for than the model takes, CapacityError when the
    configuration cannot hold it.
    """
    limit = graph.most_tokens or LONGEST
    if max_length is not None:
        if max_length > limit and graph.most_tokens:
            raise InputError(f"the model takes at most {limit} tokens, max_length is {max_length}")
        return max_length
    attention = [one for one in graph.operations if isinstance(one, Attention)]
    tokens = limit
    while tokens > 1:
        try:
            for one in attention:
                HeadLayout.choose(one, tokens, config)
            return tokens
        except CapacityError:
            tokens -= (tokens - 1) % config.lanes + 1 if tokens > config.lanes else 1
    return tokens
