"""Storage formats counted by hand on a 4 x 8 matrix, and the densities where they start to pay."""

import pytest
import torch

from espalier.compression.patterns import ColumnBalanced
from espalier.compression.storage import FORMATS, break_even, footprints
from espalier.errors import InputError
from espalier.spec.config import TINY

MASK = torch.zeros(4, 8, dtype=torch.bool)
MASK[0, :2] = MASK[1, 2] = MASK[3, 0] = True
"""Four weights; columns 0, 1, 2 have lanes 0 and 3, 0, 1: a word each."""


def bits(**options):
    return {f.format: f.bits for f in footprints(MASK, 4, config=TINY, **options)}


def test_bits_by_hand():
    assert bits() == {
        "dense": 4 * 8 * 4,
        "COO": 4 * (4 + 2 + 3),
        "CSR": 4 * (4 + 3) + 5 * 3,  # pointers 0..4
        "bitmap": 32 + 4 * 4,
        "k-of-n": 4 * 2 * 2 * (4 + 2),  # a group has two weights: all groups get two slots
        "espalier": 3 * 4 * 10 + 2 * 64,  # three words of four lanes; two groups of four columns
    }
    assert bits(n=8)["k-of-n"] == 4 * 1 * 2 * (4 + 3)


def test_traffic_is_what_the_nonzero_columns_need():
    traffic = {f.format: f.traffic_bits for f in footprints(MASK, 4, config=TINY, nonzero=0.25)}
    assert traffic["dense"] == 32 and traffic["COO"] == 9
    assert traffic["CSR"] == bits()["CSR"] and traffic["bitmap"] == bits()["bitmap"]
    assert traffic["espalier"] == 0.25 * 3 * 128 + 2 * 64  # TINY: one quad a beat


def test_eight_bits_are_two_digits_and_patterns_without_balance_are_padded():
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(64, 32, generator=generator)
    balanced = ColumnBalanced(lanes=4).mask(score, 0.25)
    fine = score > 0.75
    sizes = {}
    for name, mask in (("balanced", balanced), ("fine", fine)):
        four, eight = (footprints(mask, b, config=TINY)[-1].bits for b in (4, 8))
        assert eight - 4 * 2 * 64 == 2 * (four - 4 * 2 * 64)
        sizes[name] = (four - 4 * 2 * 64) / int(mask.sum())
    assert sizes["balanced"] == 10 < sizes["fine"]


@pytest.mark.parametrize("weight_bits", [4, 8])
def test_break_even_is_where_a_format_meets_the_dense_matrix(weight_bits):
    rows, columns = 96, 64
    for name, density in break_even(rows, columns, weight_bits, config=TINY).items():
        if name == "k-of-n":
            assert density == pytest.approx(weight_bits / (weight_bits + 2), abs=1e-3)
            continue
        for shift, less in ((0.98, True), (1.02, False)):
            kept = round(density * shift * rows * columns / 4) * 4
            mask = torch.zeros(rows * columns, dtype=torch.bool)
            order = torch.arange(rows * columns).view(rows // 4, 4, columns).movedim(1, 2)
            mask[order.flatten()[:kept]] = True  # whole words: a balanced pattern
            found = {
                f.format: f.bits
                for f in footprints(mask.view(rows, columns), weight_bits, config=TINY)
            }
            assert (found[name] < found["dense"]) is less, (name, density)


def test_all_formats_are_there_and_no_matrix_is_refused():
    assert tuple(f.format for f in footprints(MASK)) == FORMATS
    assert footprints(MASK)[0].bytes == 16
    with pytest.raises(InputError, match="mask must be a matrix"):
        footprints(torch.ones(3, dtype=torch.bool))
