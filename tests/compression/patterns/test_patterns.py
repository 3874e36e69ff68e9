"""Every pattern on matrices small enough to see, and by its own rule on random ones."""

import pytest
import torch

from espalier.compression.patterns import (
    PATTERNS,
    Blocks,
    ColumnBalanced,
    FineGrained,
    Heads,
    KOfN,
    Rows,
    UniformK,
    make_pattern,
    pattern_name,
)
from espalier.errors import RecipeError
from espalier.spec.config import SMALL, TINY

SCORE = torch.tensor(
    [
        [9.0, 1.0, 2.0, 8.0],
        [1.0, 7.0, 3.0, 0.0],
        [6.0, 5.0, 4.0, 0.5],
        [0.1, 0.2, 0.3, 0.4],
    ]
)
EXPECTED = {
    FineGrained(): ["1001", "0100", "1100", "0000"],  # 9 8 7 6 5 of 16: density 5/16
    UniformK(lanes=2): ["1001", "1110", "0110", "0001"],
    KOfN(1, 2): ["1001", "0110", "1010", "0101"],
    Blocks(2, 2): ["1100", "1100", "0000", "0000"],
    Rows(): ["1111", "0000", "0000", "0000"],
    Heads(2): ["1111", "1111", "0000", "0000"],
    Heads(2, inputs=True): ["1100", "1100", "1100", "1100"],
}
DENSITY = {FineGrained(): 5 / 16, Blocks(2, 2): 1 / 4, Rows(): 1 / 4}


def bits(mask):
    return ["".join("01"[int(entry)] for entry in row) for row in mask]


@pytest.mark.parametrize("pattern", EXPECTED, ids=repr)
def test_kept_entries_by_hand(pattern):
    assert bits(pattern.mask(SCORE, DENSITY.get(pattern, 0.5))) == EXPECTED[pattern]


@pytest.mark.parametrize("pattern", [*EXPECTED, ColumnBalanced(lanes=2)], ids=repr)
def test_only_the_order_of_scores_counts_not_their_sign(pattern):
    """Movement scores are negative as often as not."""
    generator = torch.Generator().manual_seed(3)
    score = torch.rand(8, 12, generator=generator)
    mask = pattern.mask(score, 0.5)
    assert torch.equal(pattern.mask(score - 5, 0.5), mask)
    assert mask.any() and not mask.all()


def test_uniform_k_keeps_k_of_each_lane_in_every_column():
    generator = torch.Generator().manual_seed(1)
    score = torch.rand(10, 7, generator=generator)  # lanes of 4, 3 and 3 rows
    mask = UniformK(lanes=3).mask(score, 0.5)
    for lane in range(3):
        kept = torch.where(mask[lane::3], score[lane::3], -1.0)
        left = torch.where(mask[lane::3], -1.0, score[lane::3])
        assert (mask[lane::3].sum(0) == 2).all()
        assert (kept.amax(0) > left.amax(0)).all()


@pytest.mark.parametrize("width", [8, 10])
def test_k_of_n_holds_in_every_group_also_in_a_short_last_one(width):
    score = torch.rand(5, width, generator=torch.Generator().manual_seed(2))
    mask = KOfN(2, 4).mask(score, 0.5)
    for first in range(0, width, 4):
        assert (mask[:, first : first + 4].sum(1) == 2).all()
    assert (KOfN(2, 4).mask(score, 0.75)[:, :4].sum(1) == 3).all()  # on the way to 2:4


def test_blocks_that_reach_over_the_edge_are_whole_or_empty():
    score = torch.rand(7, 5, generator=torch.Generator().manual_seed(2))
    mask = Blocks(4, 2).mask(score, 0.5)
    for rows in (slice(0, 4), slice(4, 7)):
        for columns in (slice(0, 2), slice(2, 4), slice(4, 5)):
            assert mask[rows, columns].all() or not mask[rows, columns].any()
    assert 0 < mask.sum() < mask.numel()


def test_a_block_counts_by_its_sum_not_by_its_largest():
    score = torch.tensor([[5.0, 0, 3, 3], [0, 0, 3, 3]])
    assert bits(Blocks(2, 2).mask(score, 0.5)) == ["0011", "0011"]


def test_heads_are_the_same_of_query_key_and_value(make_weight):
    """Head 1 of the query is the largest, but head 0 of all three together."""
    value = torch.ones(6, 2)
    value[1], value[2:6:2] = 1.5, 1.4
    weight = make_weight(value, Heads(1), blocks=3)
    mask = weight.project(value, 0.5)
    assert mask[:, 0].tolist() == [True, False] * 3
    apart = make_weight(value, Rows(), blocks=3).project(value, 0.5)
    assert apart[:, 0].tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize("pattern", [ColumnBalanced(lanes=3), UniformK(lanes=3)], ids=repr)
def test_reselected_columns_keep_their_count_in_every_lane(pattern):
    generator = torch.Generator().manual_seed(4)
    kept = pattern.mask(torch.rand(11, 6, generator=generator), 0.4)
    for column in range(6):
        score = torch.rand(11, generator=generator)
        again = pattern.reselect(score, kept[:, column])
        for lane in range(3):
            count = int(kept[lane::3, column].sum())
            best = score[lane::3].sort(descending=True).values[:count].sum()
            assert int(again[lane::3].sum()) == count
            assert (score * again)[lane::3].sum() == pytest.approx(float(best))


def test_names_take_the_accelerators_lanes_and_other_names_are_refused():
    assert make_pattern("column-balanced", TINY) == ColumnBalanced(lanes=4, arrays=2, group=4)
    assert make_pattern("uniform-k", SMALL) == UniformK(lanes=16)
    assert make_pattern("1:4", TINY) == KOfN(1, 4)
    assert make_pattern(Heads(3), TINY) == Heads(3)
    assert {pattern_name(make_pattern(name, TINY)) for name in PATTERNS} == {*PATTERNS} - {
        "filters"
    }
    with pytest.raises(RecipeError, match=r"pattern must be one of: column-balanced, .* not 'odd'"):
        make_pattern("odd", TINY)


@pytest.mark.parametrize(
    "pattern, density, message",
    [
        (UniformK(lanes=32), 1 / 24, r"a multiple of 1/4 .* 100 rows on 32 lanes, not 0.04167"),
        (KOfN(2, 4), 1 / 8, "density must be 2/4 with the pattern 2:4, not 0.125"),
        (Heads(16), 0.5, "heads of 16 must divide 100"),
    ],
)
def test_densities_that_a_pattern_cannot_meet_are_refused(pattern, density, message):
    with pytest.raises(RecipeError, match=message):
        pattern.check(density, (100, 64))


@pytest.mark.parametrize("make", [lambda: KOfN(5, 4), lambda: Blocks(0, 2)])
def test_impossible_patterns_are_refused(make):
    with pytest.raises(RecipeError):
        make()
