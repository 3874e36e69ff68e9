"""The labels by themselves: coding, axes, rows and choices of time steps."""

import numpy as np
import pytest
import torch

from espalier.compiler.labels import ZERO, Labels, LayoutError

LABELS = Labels(batch=2, steps=5)
IDS = np.arange(6).reshape(2, 3)
X = LABELS.tensor(IDS, 0, 1)  # [B, T, 2, 3]


def test_coding_is_reversible():
    ids, b, t = np.array([ZERO, 0, 7]), np.array([2, 0, 1]), np.array([5, 4, 0])
    for part, expected in zip(LABELS.decode(LABELS.encode(ids, b, t)), (ids, b, t), strict=True):
        assert part.tolist() == expected.tolist()
    assert len({int(code) for code in LABELS.encode(ids, b, t)}) == 3


@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (0, 3), (None, 0), (2, None), (None, None)])
def test_axes_are_found_where_they_were_put(axes):
    ids, batch_axis, time_axis = LABELS.axes(LABELS.tensor(IDS, *axes))
    assert (batch_axis, time_axis) == axes and ids.tolist() == IDS.tolist()


def test_axes_follow_movement():
    ids, batch_axis, time_axis = LABELS.axes(X.permute(2, 1, 3, 0).flip(0))
    assert (batch_axis, time_axis) == (3, 1) and ids.tolist() == IDS[::-1].tolist()


@pytest.mark.parametrize(
    "tensor",
    [X.flatten(0, 1), X.flatten(1, 2), X.flip(1), X.roll(1, 0)],
    ids=lambda t: str(t.shape),
)
def test_mixed_or_reordered_axes_are_refused(tensor):
    with pytest.raises(LayoutError, match="axis"):
        LABELS.axes(tensor)


def test_features_that_depend_on_the_step_are_refused():
    switched = torch.cat([X[:, :2], X[:, 2:].flip(-1)], dim=1)
    with pytest.raises(LayoutError, match="mixes the batch or time axis with features"):
        LABELS.axes(switched)


def test_rows_of_merged_axes():
    ids, sample, step = LABELS.rows(X.flatten(0, 1))
    assert ids.shape == (2 * 5 * 2, 3)
    assert ids[:2].tolist() == IDS.tolist() and ids[-2:].tolist() == IDS.tolist()
    assert (sample[0], step[0], sample[-1], step[-1]) == (0, 0, 1, 4)


def test_rows_with_what_never_changes():
    both = torch.cat(
        [X[:, :, 0], LABELS.tensor(np.array([9]), 0, None)[:, None].expand(-1, 5, -1)], -1
    )
    ids, sample, step = LABELS.rows(both)
    assert ids[0].tolist() == [0, 1, 2, 9]
    assert (sample[0], step[0], step[4]) == (0, 0, 4)


@pytest.mark.parametrize("axes", [(0, 2), (2, 1)])
def test_rows_across_samples_or_steps_are_refused(axes):
    with pytest.raises(LayoutError, match="works across the"):
        LABELS.rows(LABELS.tensor(np.arange(3), *axes).reshape(6, -1))


def test_steps_used():
    assert LABELS.steps_used(X) == "all"
    assert LABELS.steps_used(X[:, -1]) == "last"
    assert LABELS.steps_used(LABELS.tensor(IDS, 0, None)) == "none"
    assert LABELS.steps_used(LABELS.zeros((2, 3))) == "none"


@pytest.mark.parametrize(
    "index", [np.s_[:, 0], np.s_[:, 1:], np.s_[:, ::2], np.s_[:, -2:]], ids=str
)
def test_other_steps_are_refused(index):
    with pytest.raises(LayoutError, match="fixed length"):
        LABELS.steps_used(X[index])


def test_single_samples_are_refused():
    with pytest.raises(LayoutError, match="single samples"):
        LABELS.steps_used(X[1])
