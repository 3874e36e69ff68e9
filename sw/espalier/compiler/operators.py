"""The operators that the importer knows by name, beside `espalier.linear` and `espalier.gru`."""

from __future__ import annotations

from typing import Literal

MOVEMENT = frozenset(
    {
        "aten.cat",
        "aten.chunk",
        "aten.clone",
        "aten.column_stack",
        "aten.concat",
        "aten.concatenate",
        "aten.contiguous",
        "aten.dstack",
        "aten.expand",
        "aten.expand_as",
        "aten.flatten",
        "aten.flip",
        "aten.hsplit",
        "aten.hstack",
        "aten.index",
        "aten.index_select",
        "aten.mT",
        "aten.matrix_H",
        "aten.movedim",
        "aten.moveaxis",
        "aten.narrow",
        "aten.numpy_T",
        "aten.permute",
        "aten.ravel",
        "aten.repeat",
        "aten.repeat_interleave",
        "aten.reshape",
        "aten.reshape_as",
        "aten.roll",
        "aten.select",
        "aten.slice",
        "aten.split",
        "aten.split_with_sizes",
        "aten.squeeze",
        "aten.stack",
        "aten.swapaxes",
        "aten.swapdims",
        "aten.sym_size",
        "aten.t",
        "aten.tensor_split",
        "aten.tile",
        "aten.transpose",
        "aten.unbind",
        "aten.unflatten",
        "aten.unsafe_chunk",
        "aten.unsafe_split",
        "aten.unsqueeze",
        "aten.view",
        "aten.view_as",
        "aten.vsplit",
        "aten.vstack",
        "aten._unsafe_view",
    }
)
"""Data movement: done on labels by torch itself."""

IDENTITY = frozenset(
    {
        "aten.alias",
        "aten.detach",
        "aten.detach_",
        "aten.float",
        "aten.lift_fresh",
        "aten.lift_fresh_copy",
        "aten.positive",
        "aten.to",
        "aten.type_as",
        "aten._to_copy",
    }
)
"""Value in, value out. Dropout belongs here in evaluation mode (`DROPOUT`)."""

DROPOUT = frozenset(
    {
        "aten.dropout",
        "aten.dropout_",
        "aten.feature_dropout",
        "aten.feature_dropout_",
        "aten.alpha_dropout",
        "aten.alpha_dropout_",
        "aten.feature_alpha_dropout",
        "aten.feature_alpha_dropout_",
    }
)

ACTIVATIONS: dict[str, Literal["relu", "sigmoid", "tanh"]] = {
    "aten.relu": "relu",
    "aten.relu_": "relu",
    "aten.sigmoid": "sigmoid",
    "aten.sigmoid_": "sigmoid",
    "aten.tanh": "tanh",
    "aten.tanh_": "tanh",
}

ZEROS = frozenset({"aten.zeros", "aten.new_zeros", "aten.zeros_like"})
"""Constants that may be an initial state."""

IGNORED = frozenset(
    {
        "aten._assert_tensor_metadata",
        "aten._assert_scalar",
        "aten._assert_async",
        "aten.sym_constrain_range",
        "aten.sym_constrain_range_for_size",
    }
)

ADVICE = {
    "aten.mean": "use the last time step",
    "aten.max": "use the last time step",
    "aten.amax": "use the last time step",
    "aten.linear": "only nn.Linear modules are compiled",
    "aten.gru": "only nn.GRU modules are compiled",
    "aten.gru_cell": "use nn.GRU",
    "aten.lstm": "use nn.GRU",
    "aten.batch_norm": "fold it into a layer",
    "aten.softmax": "apply it to the outputs on the host",
    "aten.log_softmax": "apply it to the outputs on the host",
}

SUPPORTED = (
    "nn.GRU (any layers, batch_first, bias, bidirectional, initial state), nn.Linear, relu, "
    "sigmoid, tanh, dropout in evaluation mode, and data movement among features: slices, select, "
    "cat, stack, view, reshape, flatten, unflatten, permute, transpose, squeeze, unsqueeze, chunk, "
    "split, unbind, contiguous; of time: all steps or the last one (y[:, -1], h_n)"
)
