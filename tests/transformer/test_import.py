"""What `import_tokens` reads from unmodified models, and what it refuses.

Every import compares the graph with the model on the example, so that a successful one computes the
same; these tests say which structure it has.
"""

from __future__ import annotations

import pytest
import tiny_transformers as tiny
import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier.errors import InputError, UnsupportedModelError
from espalier.transformer import float_graph as fg
from espalier.transformer import importer
from espalier.transformer.importer import import_tokens

POST_NORM = (
    "Linear Linear Linear Attention Linear Add LayerNorm Linear Activation Linear Add LayerNorm"
)
PRE_NORM = (
    "LayerNorm Linear Linear Linear Attention Linear Add LayerNorm Linear Activation Linear Add"
)


def kinds(graph: fg.FloatGraph) -> str:
    return " ".join(type(operation).__name__ for operation in graph.operations)


def attentions(graph: fg.FloatGraph) -> list[fg.Attention]:
    return [each for each in graph.operations if isinstance(each, fg.Attention)]


def padding(samples: int = 3, tokens: int = 9) -> Tensor:
    """True where a token is padding."""
    mask = torch.zeros(samples, tokens, dtype=torch.bool)
    mask[1, 6:] = True
    return mask


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert(attention: str) -> None:
    ids, kept = tiny.ids(3, 9), (~padding()).long()
    graph = import_tokens(
        tiny.bert(attn_implementation=attention), (), {"input_ids": ids, "attention_mask": kept}
    )
    assert kinds(graph) == f"Embed {POST_NORM} {POST_NORM}"
    assert graph.mask == fg.MaskInput("attention_mask", kept=True)
    assert graph.host_norm is not None and graph.most_tokens == 40
    assert [table.index for table in graph.embed.tables] == ["input_ids", None, "position"]
    assert [(a.heads, a.head_size, a.scale, a.causal) for a in attentions(graph)] == [
        (2, 16, 0.25, False)
    ] * 2
    hidden, pooled = graph.outputs["last_hidden_state"], graph.outputs["pooler_output"]
    assert (hidden.first, hidden.axes) == (False, (0, 1))
    assert pooled.first and [layer.activation for layer in pooled.layers] == ["tanh"]
    assert "encoder.layer.1.output.dense.weight" in graph.parameters


def test_bert_with_token_types() -> None:
    ids = tiny.ids(2, 6)
    graph = import_tokens(tiny.bert(), (), {"input_ids": ids, "token_type_ids": ids % 2})
    assert [table.index for table in graph.embed.tables] == [
        "input_ids", "token_type_ids", "position",
    ]  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gpt2(attention: str) -> None:
    graph = import_tokens(tiny.gpt2(attn_implementation=attention), tiny.ids())
    assert kinds(graph) == f"Embed {PRE_NORM} {PRE_NORM} LayerNorm Linear"
    assert all(each.causal for each in attentions(graph)) and graph.host_norm is None
    assert {o.function for o in graph.operations if isinstance(o, fg.Activation)} == {"gelu_tanh"}
    head = graph.linears[-1]
    assert head.weight.parameter == graph.embed.tables[0].rows.parameter == "lm_head.weight"
    joint = [o for o in graph.linears if o.weight.parameter.endswith("c_attn.weight")]
    assert [len(o.weight.places) for o in joint] == [64] * 6


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_torch_encoder(norm_first: bool, batch_first: bool) -> None:
    model = tiny.encoder(norm_first=norm_first, batch_first=batch_first, activation="gelu")
    x = torch.randn(3, 9, 32)
    graph = import_tokens(model, x if batch_first else x.transpose(0, 1))
    assert kinds(graph) == f"Embed {PRE_NORM if norm_first else POST_NORM}"
    assert graph.embed.given == "src"
    assert graph.outputs["output"].axes == ((0, 1) if batch_first else (1, 0))


def test_torch_encoder_without_a_batch() -> None:
    graph = import_tokens(tiny.encoder().layers[0], torch.randn(9, 32))
    assert graph.outputs["output"].axes == (None, 0)


@pytest.mark.parametrize("flag", [None, True])
def test_torch_masks(flag: bool | None) -> None:
    x, causal = torch.randn(3, 9, 32), torch.ones(9, 9, dtype=torch.bool).triu(1)
    flags = {} if flag is None else {"is_causal": flag}
    graph = import_tokens(tiny.encoder(), (x,), {"mask": causal, **flags})
    assert attentions(graph)[0].causal and graph.mask is None
    both = {"mask": causal, "src_key_padding_mask": padding(), **flags}
    graph = import_tokens(tiny.encoder(), (x,), both)
    assert attentions(graph)[0].causal
    assert graph.mask == fg.MaskInput("src_key_padding_mask", kept=False)
    graph = import_tokens(tiny.encoder(), (x,), {"src_key_padding_mask": padding()})
    assert not attentions(graph)[0].causal


class Residual(nn.Module):
    def __init__(self, need_weights: bool, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=batch_first)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=self.need_weights)[0]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention(need_weights: bool, batch_first: bool) -> None:
    x = torch.randn(3, 9, 32)
    model = Residual(need_weights, batch_first).eval()
    graph = import_tokens(model, x if batch_first else x.transpose(0, 1))
    assert kinds(graph) == "Embed Linear Linear Linear Attention Linear Add"
    assert attentions(graph)[0].scale == pytest.approx(8**-0.5)


def test_a_model_written_by_hand() -> None:
    graph = import_tokens(tiny.Plain().eval(), tiny.ids(2, 7))
    assert kinds(graph) == f"Embed {PRE_NORM} Linear"
    assert [(t.index, t.factor) for t in graph.embed.tables] == [
        ("ids", pytest.approx(32**0.5)), ("position", 1.0),
    ]  # fmt: skip
    assert graph.most_tokens == 20 and attentions(graph)[0].causal
    assert set(graph.outputs) == {"logits", "hidden"}


class Grouped(tiny.Plain):
    """Two key heads for four query heads, head by head in another order of axes."""

    def attention(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.unflatten(-1, (4, -1)).movedim(2, 1) for part in self.qkv(x).chunk(3, -1))
        k, v = k[:, ::2], v[:, ::2]
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(y.permute(0, 2, 1, 3).reshape(b, t, c))


def test_grouped_query_attention() -> None:
    graph = import_tokens(Grouped().eval(), tiny.ids(2, 7))
    query, key, _ = graph.linears[:3]
    assert query.weight.places.unique().numel() == 32 * 32
    assert key.weight.places.unique().numel() == 16 * 32


def test_pruning_parametrizations_are_followed() -> None:
    model = tiny.Plain().eval()
    mask = torch.rand(32, 32) < 0.5

    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * mask

    nn.utils.parametrize.register_parametrization(model.out, "weight", Mask())
    graph = import_tokens(model, tiny.ids(2, 7))
    weights = [o.weight.of(graph.parameters) for o in graph.linears]
    assert any(torch.equal(weight, model.out.weight) for weight in weights)


class Unsupported(tiny.Plain):
    def forward(self, ids: Tensor) -> Tensor:
        x = functional.silu(self.tokens(ids))  # first
        x = self.out(x)
        x = torch.fft.fft(x).real
        return x.cumsum(1)


def test_everything_unsupported_is_listed_with_lines() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        import_tokens(Unsupported().eval(), tiny.ids(2, 7))
    message = str(caught.value)
    for operator in ("function that is not supported", "aten.fft_fft", "aten.cumsum"):
        assert operator in message
    assert "x = torch.fft.fft(x).real" in message and "test_import.py" in message


class Window(tiny.Plain):
    def attention(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().triu(-2)
        y = functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], mask)
        return y[:, 0]


class Biased(tiny.Plain):
    def attention(self, x: Tensor) -> Tensor:
        scores = x @ x.mT
        return torch.softmax(scores + torch.randn(1, x.shape[1], 1), -1) @ x


class Pooling(tiny.Plain):
    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids).mean(1)


class FixedLength(tiny.Plain):
    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.tokens(ids).reshape(2, 7, 32))


class Dropping(tiny.Plain):
    def forward(self, ids: Tensor) -> Tensor:
        return self.out(functional.dropout(self.tokens(ids), 0.5))


class Weights(tiny.Plain):
    def attention(self, x: Tensor) -> Tensor:
        weights = torch.softmax(x @ x.mT, -1)
        return weights.sum(-1, keepdim=True) * x


class Shifted(tiny.Plain):
    def attention(self, x: Tensor) -> Tensor:
        return x.roll(1, dims=1)


class Branching(tiny.Plain):
    def attention(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 2 * x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Window, "neither full nor causal"),
        (Biased, "only masks of 0 and -inf"),
        (Pooling, "pool on the host"),
        (FixedLength, "fixed number of samples or tokens"),
        (Dropping, "training=True"),
        (Weights, "works on attention weights"),
        (Shifted, "adds different tokens to each other"),
        (Branching, "depends on the inputs' values"),
    ],
)
def test_refused(model: type[nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        import_tokens(model().eval(), tiny.ids(2, 7))
    assert "tests/transformer/" in str(caught.value)


def test_training_mode_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"call model.eval\(\) first"):
        import_tokens(tiny.Plain().train(), tiny.ids(2, 7))


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="give example inputs"):
        import_tokens(tiny.bert())
    with pytest.raises(InputError, match="do not fit"):
        import_tokens(tiny.Plain().eval(), tiny.ids(2, 7), {"no": 1})
    left = {"input_ids": tiny.ids(3, 9), "attention_mask": (~padding()).long().flip(1)}
    with pytest.raises(InputError, match="padding must be on the right"):
        import_tokens(tiny.bert(), (), left)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"attention_mask": torch.ones(3, 8).long()}, r"for every token, \[3, 9\] for input_ids"),
        ({"attention_mask": torch.ones(2, 9).long()}, r"not \[2, 9\]"),
        ({"attention_mask": torch.ones(9).long()}, r"not \[9\]"),
        ({"attention_mask": torch.ones(3, 1, 9, 9)}, r"must be \[batch, tokens\] or \[tokens\]"),
        ({"input_ids": torch.full((3, 9), 100)}, "fails on the example.*index out of range"),
        ({"input_ids": torch.zeros(2, 41, dtype=torch.long)}, "fails on the example.*lengths"),
    ],
)
def test_examples_that_the_model_does_not_take(inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_tokens(tiny.bert(), (), {"input_ids": tiny.ids(3, 9), **inputs})


def test_masks_of_floats_of_either_order() -> None:
    x, mask = torch.randn(3, 9, 32), torch.zeros(3, 9, dtype=torch.bool)
    for batch_first, given in ((True, x), (False, x.transpose(0, 1))):
        model = tiny.encoder(batch_first=batch_first)
        assert import_tokens(model, given, {"src_key_padding_mask": mask}).mask is not None
        with pytest.raises(InputError, match=r"for every token|fails on the example"):
            import_tokens(model, given, {"src_key_padding_mask": mask[:, :7]})
    square = torch.ones(8, 8, dtype=torch.bool).triu(1)
    with pytest.raises(InputError, match="fails on the example"):
        import_tokens(tiny.encoder(), x, {"mask": square})


def test_what_was_misread_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = importer.compute
    monkeypatch.setattr(
        importer, "compute", lambda *a: {k: v * 1.01 for k, v in compute(*a).items()}
    )
    with pytest.raises(UnsupportedModelError, match="not understood"):
        import_tokens(tiny.Plain().eval(), tiny.ids(2, 7))
