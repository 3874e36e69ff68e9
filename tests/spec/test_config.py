"""Presets hold together, and impossible sizes are refused with rule and value."""

from dataclasses import replace

import pytest

from espalier.spec import registers
from espalier.spec.config import DE1_SOC, PRESETS, SMALL, TINY, preset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes": 6}, "lanes must be a multiple of 4, not 6"),
        ({"lanes": 20}, r"lanes must be a multiple of vector_lanes \(8\), not 20"),
        ({"group": 5}, "group must be 4 or 8, not 5"),
        ({"arrays": 0}, "arrays must be a positive integer, not 0"),
        ({"vector_depth": 4096}, "vector_depth must be at most 1024, not 4096"),
        ({"tables": 5}, "tables must be at most 4, not 5"),
        ({"weight_depth": 1.5}, "weight_depth must be a positive integer, not 1.5"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_identities_differ_and_ignore_the_name():
    assert len({config.identity for config in PRESETS.values()}) == len(PRESETS)
    assert replace(TINY, name="OTHER").identity == TINY.identity
    assert replace(TINY, sum_depth=64).identity != TINY.identity
    assert replace(TINY, reductions=False).identity != TINY.identity


def test_unknown_presets_name_the_choices():
    with pytest.raises(ValueError, match="choose one of: TINY, SMALL, DE1_SOC, ULX3S"):
        preset("LARGE")


def test_derived_sizes():
    assert (DE1_SOC.total_lanes, DE1_SOC.tile_rows, DE1_SOC.slot_chunks) == (256, 1024, 2)
    assert DE1_SOC.chunks(17) == 2 and DE1_SOC.groups_per_array(65) == 2


def test_registers_do_not_overlap():
    addresses = [register.address for register in registers.REGISTERS.values()]
    assert len(set(addresses)) == len(addresses)
    assert all(a % 4 == 0 and a < registers.SIZE_BYTES for a in addresses)
    with pytest.raises(ValueError, match="unknown register 'NOPE'"):
        registers.address("NOPE")
