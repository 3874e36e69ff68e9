"""The vector unit on a Cyclone V, by Yosys: memories in block RAM, multiplies in DSP blocks."""

from espalier.spec.config import TINY
from espalier_hw.synthesis.cyclonev import measure
from espalier_hw.vector_unit import VectorUnit


def test_memories_and_multipliers_find_their_blocks():
    usage = measure(VectorUnit(TINY, drain_latency=6))
    lanes = TINY.vector_lanes
    blocks = {
        "vector_memory": 3 * -(-16 * lanes // 40),
        "sum_memory": lanes // 2 * -(-2 * 27 // 40),
        "parameter_memory": lanes,
        "table_memory": lanes,
    }
    assert {name: usage[name].m10k for name in blocks} == blocks
    assert usage["kept_operand"].mlab == 16 * lanes
    total = usage[""]
    assert total.m10k == sum(blocks.values())
    squares, variance = 4 / 2, 2 + 1
    assert total.dsp == 3 * lanes + squares + variance
    assert usage["lane"].alms <= 235 * lanes
    assert usage["reductions.reducer"].alms + usage["reductions.unit"].alms <= 700
