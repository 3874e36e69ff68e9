"""Blocks of rows."""

import pytest

from espalier.spec.config import DE1_SOC, SLOTS, SMALL, TINY
from espalier.spec.tiling import block_units, row_blocks


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda config: config.name)
@pytest.mark.parametrize("planes", [1, 2])
def test_blocks_hold_all_units_in_half_the_slots(config, planes):
    most = SLOTS // 2 // planes
    for units in range(1, 200):
        blocks = block_units(units, planes, config.lanes, config)
        assert sum(blocks) == units and min(blocks) >= 1 and max(blocks) <= most
        assert len(set(blocks[:-1])) <= 1
        assert units == 1 or len(blocks) % 2 == 0 or len(blocks) == -(-units // max(blocks))


def test_minilm_on_the_board():
    """384 rows, the feed-forward layer's 1,536, and those with a few more rows."""
    assert [row_blocks(rows, 4, DE1_SOC) for rows in (384, 1536)] == [2, 4]
    assert row_blocks(1536, 8, DE1_SOC) == 6
    assert block_units(25, 1, 64, DE1_SOC) == [6, 6, 6, 7]


def test_units_that_need_more_than_half():
    assert block_units(2, 2, 10 * TINY.lanes, TINY) == [1, 1]
    assert block_units(1, 2, 20 * TINY.lanes, TINY) == []


def test_a_matrix_of_fewer_rows_than_lanes_is_one_block():
    assert block_units(0, 1, SMALL.lanes, SMALL) == []
    assert row_blocks(SMALL.lanes - 1, 4, SMALL) == 1
