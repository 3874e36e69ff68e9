"""Where passes' weights lie and what is loaded early; loops over tokens as software pipelines."""

from collections import Counter

import pytest
from token_graphs import decoder, encoder

from espalier.compiler.emit import Assembly
from espalier.compiler.tokens.attention import AttentionPass
from espalier.compiler.tokens.body import Body
from espalier.compiler.tokens.build import count, plan
from espalier.compiler.tokens.context import Context
from espalier.compiler.tokens.pipeline import PAIR, Pipeline, cycles, pipeline
from espalier.compiler.tokens.tokenpass import TokenPass
from espalier.spec.config import DE1_SOC, SMALL
from espalier.spec.tokens import AHEAD

GRAPHS = {
    "encoder": (encoder(1, layers=3, width=64, heads=4, inner=128), SMALL),
    "decoder": (decoder(2, layers=2, width=64, heads=4, inner=128), SMALL),
    "wide": (encoder(3, layers=2, width=256, heads=8, inner=512, density=0.3), DE1_SOC),
}


def planned(name):
    graph, config = GRAPHS[name]
    context = Context.of(graph, config, 32)
    return context, plan(context)


def words(parts):
    return {address for first, end in parts for address in range(first, end)}


@pytest.mark.parametrize("name", GRAPHS)
def test_early_words_are_none_of_the_pass_before(name):
    context, blocks = planned(name)
    early = 0
    for block in blocks:
        before = block[-1] if count(context, block) > 1 else None
        for one in block:
            if isinstance(one, TokenPass) and one.data.blocks:
                whole = words([one.weights])
                assert words(one.early) | words(one.late) == whole
                assert not words(one.early) & words(one.late)
                assert max(whole) < context.config.weight_depth
                if one.early:
                    assert not words(one.early) & words([before.weights])
                early += len(words(one.early))
            before = one
    assert early > 0


def test_attention_leaves_room_for_what_follows():
    """Keys and values of two groups of heads, and all weights of the pass behind."""
    graph = encoder(4, layers=2, width=256, heads=8, inner=256, density=0.2)
    blocks = plan(Context.of(graph, DE1_SOC, 128))
    (block,) = (b for b in blocks if any(isinstance(one, AttentionPass) for one in b))
    place = next(n for n, one in enumerate(block) if isinstance(one, AttentionPass))
    assert block[place].layout.buffers == 2
    assert block[place + 1].early and not block[place + 1].late


def pair_of(name, index):
    """The items of a pass's pair, and the configuration."""
    context, blocks = planned(name)
    block = max(blocks, key=len)
    passes = [one for one in block if isinstance(one, TokenPass)]
    body = Body(passes[index], Assembly(context.config))
    body.loads(0, 0)

    def pair(back):
        return [*body.token(0, back), *body.token(1, 1 + back)]

    return pair, context.config


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("index", [0, 1, -1])
def test_every_item_runs_once_for_every_pair(name, index):
    """The loop n times and what follows it do each item of each of n pairs; nothing is put off
    further than there are rows for."""
    pair, config = pair_of(name, index)
    loop = pipeline(pair, config, fixed=lambda item: False)
    assert sorted(i for i, _ in loop.order) == list(range(len(pair(0))))
    assert all(-AHEAD <= back <= 0 for _, back in loop.order)
    passes, done = 5, Counter()
    for n in range(passes):
        done.update((i, n + back // PAIR) for i, back in loop.order)
    for n, rest in enumerate(loop.finish(), passes):
        left = [(i, back) for i, back in loop.order if -back >= (n - passes + 1) * PAIR]
        assert len(rest) == len(left)
        done.update((i, passes + back // PAIR + n - passes) for i, back in left)
    wanted = {(i, n): 1 for i in range(len(pair(0))) for n in range(passes)}
    assert {key: times for key, times in done.items() if key[1] >= 0} == wanted


def test_putting_off_makes_a_layer_norm_loop_faster():
    pair, config = pair_of("wide", 1)
    plain = Pipeline(pair, [(i, 0) for i in range(len(pair(0)))]).ordered()
    found = pipeline(pair, config, fixed=lambda item: False)
    assert found.depth >= 1
    assert cycles(found.body, config) < 0.9 * cycles(plain.body, config)


def test_fixed_items_are_not_put_off():
    pair, config = pair_of("wide", 1)
    loop = pipeline(pair, config, fixed=lambda item: item.unit == "vector")
    assert all(back == 0 for i, back in loop.order if pair(0)[i].unit == "vector")
