"""The column-balanced pattern against brute force and its own rules."""

from itertools import product

import pytest
import torch

from espalier.compression.patterns.column_balanced import array_of_columns, column_balanced_mask

SHAPES = [(6, 5, 2, 1, 2), (7, 6, 3, 2, 2), (4, 9, 4, 2, 4), (3, 4, 8, 2, 2), (9, 3, 4, 2, 1)]
"""rows, columns, lanes, arrays, group"""


def make_score(rows, columns, seed):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def words_of(mask, lanes):
    """k_j [N] of a mask, after checking that every lane keeps k_j of its rows or all of them."""
    words = []
    for column in mask.T:
        kept = [int(column[lane::lanes].sum()) for lane in range(min(lanes, len(column)))]
        k = max(kept)
        assert all(count == min(k, len(column[lane::lanes])) for lane, count in enumerate(kept))
        words.append(k)
    return words


def best_score(score, lanes, columns, words):
    """Largest kept score over all k_j of some columns with `words` in all, by trying every one."""
    rows = score.shape[0]
    best = -1.0
    for choice in product(range(-(-rows // lanes) + 1), repeat=len(columns)):
        if sum(choice) != words:
            continue
        kept = 0.0
        for column, k in zip(columns, choice, strict=True):
            for lane in range(lanes):
                kept += float(score[lane::lanes, column].sort(descending=True).values[:k].sum())
        best = max(best, kept)
    return best


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.1, 0.3, 0.6, 1.0])
def test_no_other_choice_of_the_same_words_keeps_more(shape, density):
    rows, columns, lanes, arrays, group = shape
    score = make_score(rows, columns, rows * columns)
    mask = column_balanced_mask(score, density, lanes, arrays, group)
    words = words_of(mask, lanes)
    owner = array_of_columns(columns, arrays, group)
    for array in range(arrays):
        mine = (owner == array).nonzero().flatten().tolist()
        kept = float((score * mask)[:, mine].sum())
        total = sum(words[j] for j in mine)
        assert kept == pytest.approx(best_score(score, lanes, mine, total), abs=1e-5)


@pytest.mark.parametrize("rows, columns", [(64, 64), (300, 130), (10, 64), (33, 7), (256, 256)])
@pytest.mark.parametrize("density", [0.01, 1 / 12, 1 / 8, 0.5, 0.97, 1.0])
def test_density_is_within_a_word_and_arrays_finish_together(rows, columns, density):
    lanes, arrays, group = 32, 8, 8
    mask = column_balanced_mask(make_score(rows, columns, 1), density, lanes, arrays, group)
    words = torch.tensor(words_of(mask, lanes))
    word = min(lanes, rows)
    kept = int(mask.sum())
    assert abs(kept - density * rows * columns) <= word / 2 or kept == word
    owner = array_of_columns(columns, arrays, group)
    slots = -(-rows // lanes)
    loads = [(int(words[owner == a].sum()), int((owner == a).sum()) * slots) for a in range(arrays)]
    longest = max(load for load, _ in loads)
    assert all(load >= longest - 1 or load == capacity for load, capacity in loads)


def test_array_of_columns_is_dealt_in_groups():
    assert array_of_columns(10, 2, 2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]


def test_ties_and_zeros_keep_the_pattern_balanced():
    mask = column_balanced_mask(torch.zeros(12, 8), 0.4, 4, 2, 2)
    words_of(mask, 4)
    assert abs(int(mask.sum()) - 0.4 * 96) <= 2


@pytest.mark.parametrize("array", [0, 1, 2])
def test_a_word_that_not_all_arrays_get_goes_where_it_keeps_most(array):
    score = make_score(4, 6, 1)
    score[:, 2 * array] += 1
    words = words_of(column_balanced_mask(score, 1 / 6, 4, 3, 2), 4)
    assert words[2 * array] == 1 and sum(words) == 1


def test_more_important_columns_keep_more():
    score = make_score(64, 8, 2)
    score[:, 3] *= 10
    words = words_of(column_balanced_mask(score, 0.25, 8, 1, 8), 8)
    assert words[3] == 8 and sum(words) == 16
