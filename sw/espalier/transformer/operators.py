"""Operators that the walk over an exported transformer knows by name."""

from __future__ import annotations


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


MOVEMENT = _aten(
    "cat chunk clone contiguous expand expand_as flatten flip index index_select mT movedim "
    "moveaxis narrow numpy_T permute ravel repeat repeat_interleave reshape reshape_as roll select "
    "slice split split_with_sizes squeeze stack swapaxes swapdims t tensor_split transpose "
    "unbind unflatten unsafe_chunk unsafe_split unsqueeze view view_as _unsafe_view "
    "_reshape_alias"
)
"""Data movement: done on labels by torch itself."""

IDENTITY = _aten(
    "alias detach detach_ float lift_fresh lift_fresh_copy positive to type_as _to_copy"
)

DROPOUT = _aten("dropout dropout_ feature_dropout alpha_dropout")

ELEMENTWISE = _aten(
    "relu gelu tanh sigmoid silu elu leaky_relu mul div neg pow square exp erf hardtanh "
    "hardswish softplus clamp clamp_min clamp_max abs sqrt rsqrt reciprocal masked_fill where "
    "add sub rsub"
)
"""One result element from one element of each argument."""

FILLS = _aten("zeros_like ones_like full_like new_ones new_zeros new_full")
"""Constants of a value's shape."""

IGNORED = _aten(
    "_assert_tensor_metadata _assert_scalar _assert_async sym_constrain_range "
    "sym_constrain_range_for_size"
)

KNOWN = MOVEMENT | IDENTITY | DROPOUT | ELEMENTWISE | FILLS | IGNORED

ADVICE = {
    "aten.mean": "pool on the host, from the last hidden state",
    "aten.gru": "models with nn.GRU are compiled without attention",
    "aten.lstm": "use attention, or nn.GRU in a model without attention",
    "aten.batch_norm": "use nn.LayerNorm",
    "aten.rms_norm": "use nn.LayerNorm",
    "aten.group_norm": "use nn.LayerNorm",
    "aten.conv1d": "only token-by-token layers and attention are supported",
    "aten.einsum": "use matmul, or scaled_dot_product_attention",
    "aten.gather": "pick tokens on the host",
    "aten.argmax": "do it on the host, from the logits",
}

SUPPORTED = (
    "embeddings (host), nn.Linear and matrix products with parameters, nn.LayerNorm over the last "
    "axis, gelu (both forms), relu, tanh, sigmoid, residual additions, attention "
    "(scaled_dot_product_attention, nn.MultiheadAttention, matmul + softmax) that is full or "
    "causal with padding on the right, a pooler on the first token (host), and data movement"
)
