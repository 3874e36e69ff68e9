"""Packing, bounds, capacity and DDR bytes, each on its own."""

from dataclasses import replace

import numpy as np
import pytest
from integer_graphs import (
    DEEP,
    STATE,
    Bench,
    gru_graph,
    linear_graph,
    matrix,
    random_inputs,
    steps_input,
    steps_output,
)

from espalier.compiler import bounds
from espalier.compiler.backend import build
from espalier.compiler.emit import Assembly
from espalier.compiler.ir import Activation, Graph, Value, View
from espalier.compiler.packing import descriptor_words, pack, plane_height, weight_bytes
from espalier.compiler.products import row_blocks
from espalier.errors import CapacityError, UnsupportedModelError
from espalier.parameters import Matrix
from espalier.spec.config import DE1_SOC, SMALL, TINY
from espalier.spec.isa import Source, Store
from espalier.spec.memory import Memory
from espalier_sim.reference.memories import Memories


@pytest.mark.parametrize("config", [TINY, SMALL, DE1_SOC], ids=lambda c: c.name)
@pytest.mark.parametrize(("rows", "columns", "bits"), [(5, 3, 4), (17, 70, 8), (60, 9, 4)])
def test_packed_words_hold_the_matrix(config, rows, columns, bits):
    """Loaded by the machine's own reader, every column's entries add up to the weights."""
    weights = matrix(np.random.default_rng(rows), rows, columns, bits, 0.4)
    height, groups = plane_height(rows, config), config.groups_per_array(columns)
    packed = pack(weights, 1, height, groups, config)
    count = int(packed.lengths.max())
    memories = Memories(config)
    memories.load(Memory.WEIGHTS, 0, count, weight_bytes(list(packed.words), count, config))
    bases = descriptor_words(packed, np.zeros(config.arrays, np.int64)) & np.uint64(0xFFFF)
    found = np.zeros((rows, columns), np.int64)
    for column in range(columns):
        group, byte = divmod(column, config.group)
        local, array = divmod(group, config.arrays)
        first = int(bases[array, local]) + int(packed.counts[array, local, :byte].sum())
        for word in range(first, first + int(packed.counts[array, local, byte])):
            for lane in range(config.lanes):
                slot = memories.entry_slots[array, word, lane] - 1
                digit, (plane, at) = memories.digits[array, word, lane], divmod(slot, height)
                if digit:
                    found[at * config.lanes + lane, column] += digit * 16**plane
    np.testing.assert_array_equal(found, weights.weight)


def test_balanced_columns_need_no_padding():
    weight = np.zeros((16, 8), np.int16)
    for column in range(8):
        for lane in range(4):
            weight[lane + 4 * (column % 4), column] = 1 + lane
    packed = pack(Matrix(weight=weight, bit_width=4), 0, 4, 1, TINY)
    assert packed.lengths.tolist() == [4, 4] and packed.counts.tolist() == [[[1] * 4]] * 2


def test_parts_of_a_product_are_the_product():
    weights = matrix(np.random.default_rng(1), 9, 60, 8, 0.3)
    packed = pack(weights, 0, plane_height(9, TINY), 8, TINY)
    parts = [packed.part(0, 3), packed.part(3, 8)]
    for array in range(TINY.arrays):
        joined = np.concatenate([part.words[array] for part in parts])
        np.testing.assert_array_equal(joined, packed.words[array])
    assert sum(part.groups for part in parts) == packed.groups


@pytest.mark.parametrize("delta", [False, True])
def test_segments_respect_the_accumulator(delta):
    """Dense worst-case columns: every segment fits, and one more group would not."""
    weights = Matrix(weight=np.full((4, 1600), 7, np.int16), bit_width=4)
    packed = pack(weights, 0, 1, TINY.groups_per_array(1600), TINY)
    segments = bounds.split([packed, packed], delta)
    limit = (1 << 19) - 1
    peak = 254 if delta else 127
    loads = [sum(p.magnitudes.sum(1) for _, p, _ in segment).max() * peak for segment in segments]
    assert max(loads) <= limit and min(loads[:-1]) + 7 * 4 * peak > limit
    assert sum(p.groups for segment in segments for _, p, _ in segment) == 2 * packed.groups


def test_a_sum_too_large_for_27_bits_is_refused():
    graph = linear_graph(np.random.default_rng(1), 6000, 4, bits=8)
    graph.operations[1].parameters.matrix.weight[:] = 119
    with pytest.raises(CapacityError, match=r"\\|weight\\|.127 of every row must be at most"):
        build(graph, DEEP, {})


def test_row_blocks_are_equal_and_whole_slots():
    assert row_blocks(90, 2, 32, TINY) == [slice(0, 48), slice(48, 90)]
    assert row_blocks(5, 1, 16, SMALL) == [slice(0, 5)]


def test_bytes_are_known_before_the_run():
    """Resident: the weights once, then only inputs and outputs; streamed: as the notes say."""
    random = np.random.default_rng(2)
    for graph, config in (
        (gru_graph(random, 30, 20, density=0.3), DEEP),
        (gru_graph(random, 14, 24, density=0.9), TINY),
    ):
        bench = Bench(graph, config)
        for steps in (1, 7):
            bench.run(random_inputs(random, graph, steps))
            counters = bench.session.counters
            moved = 16 * (counters["read_beats"] + counters["write_beats"])
            told = bench.program.notes["bytes"]["run"]
            assert moved == told["fixed"] + steps * told["per_step"]
        ports = (*bench.program.inputs, *bench.program.outputs)
        if bench.program.notes["residency"] == "resident":
            assert (told["fixed"], told["per_step"]) == (0, sum(p.stride_bytes for p in ports))


@pytest.mark.parametrize(
    ("kind", "size"),
    [(Store.NONE, 0), (Store.VALUES, 3 * 16), (Store.SUMS, 3 * 32), (Store.COLUMNS, 2 * 16)],
)
def test_what_a_vector_stores_is_counted_as_what_it_is(kind, size):
    """Three chunks of 8 elements, twice: 16 or 32 bits an element, or 8 bytes a group of 8 in whole
    beats of 16."""
    program = Assembly(SMALL)
    program.entry("run")
    with program.loop(count=2):
        program.vector(count=3, source=Source.ZERO, store=kind, register=1)
    program.halt()
    assert program.traffic("run") == {"fixed": 2 * size, "per_step": 0}


def test_layers_tell_what_is_kept():
    graph = gru_graph(np.random.default_rng(3), 12, 10, density=0.5)
    layers = build(graph, SMALL, {}).layers
    cell = graph.operations[1].cells[0][0]
    assert [layer.kept for layer in layers] == [
        np.count_nonzero(cell.weight_ih.weight),
        np.count_nonzero(cell.weight_hh.weight),
    ]
    assert all(layer.entries >= layer.kept and layer.per_step for layer in layers)


def test_what_does_not_fit_is_refused_with_the_rule():
    random = np.random.default_rng(4)
    with pytest.raises(CapacityError, match="vector memory"):
        build(gru_graph(random, 4, 400, density=0.01), TINY, {})
    with pytest.raises(CapacityError, match="parameter memory"):
        build(linear_graph(random, 4, 140), replace(TINY, parameter_depth=32), {})
    with pytest.raises(CapacityError, match="instructions"):
        build(gru_graph(random, 60, 60), replace(TINY, program_depth=64), {})
    with pytest.raises(CapacityError, match=r"last-sent|sums"):
        build(gru_graph(random, 4, 130, density=0.01, hidden_threshold=1), TINY, {})


def test_columns_have_no_values():
    x, source = steps_input("x", 6)
    y = Value("y", 6, STATE, True)
    graph = Graph([source, Activation("relu", View.of(x), y)], [steps_output("y", View.of(y))])
    with pytest.raises(UnsupportedModelError, match="'x' arrives as columns"):
        build(graph, TINY, {})
