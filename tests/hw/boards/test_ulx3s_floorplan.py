"""Block RAMs of the ULX3S in their places."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from espalier_hw.boards.ulx3s_floorplan import ARRAY_ROW, SITES, WINDOW_ROW, fix, site


def netlist(arrays: int, banks: int, window: int) -> dict:
    """Cells of a netlist: every array has `banks` block RAMs of weights and 4 of its feeder."""
    names = [
        f"fabric.accelerator.engine.array_{array}.{part}.0.0"
        for array in range(arrays)
        for part in (
            *(f"bank_{bank}.part_0" for bank in range(banks)),
            *(f"feeder.fetch.memories.memory_{n}" for n in range(4)),
        )
    ]
    names += [f"fabric.window.bank_{n // 15}.0.{n % 15}" for n in range(window)]
    vector = "fabric.accelerator.vector"
    names += [f"{vector}.parameter_memory.part_{n}_copy_0.0.{k}" for n in range(8) for k in (0, 1)]
    names += [f"{vector}.sum_memory.part_{n}_copy_0.0.0" for n in range(4)]
    names += ["fabric.accelerator.loader.weight_buffer.words.storage.0.0"]
    cells = {name: {"type": "DP16KD", "attributes": {}} for name in names}
    cells["fabric.window.bank_0.read"] = {"type": "TRELLIS_FF", "attributes": {}}
    return {"modules": {"top": {"cells": cells}}}


def places(design: dict, part: str) -> list[str]:
    cells = design["modules"]["top"]["cells"]
    return [c["attributes"]["BEL"] for n, c in cells.items() if part in n and c["attributes"]]


def column(place: str) -> int:
    return int(place.split("/")[0][1:])


def test_sites_of_a_row_are_the_chips():
    """Thirteen groups of four, two columns apart in a group; six groups of columns 4 to 64."""
    columns = [column(site(index, 22)) for index in range(SITES)]
    assert columns[:4] == [4, 6, 8, 10]
    assert columns[24:32] == [58, 60, 62, 64, 69, 71, 73, 75]
    assert columns[-4:] == [114, 116, 118, 120]
    assert Counter(b - a for a, b in pairwise(columns)) == {
        2: 39,
        3: 11,
        5: 1,
    }


def test_every_array_has_neighbouring_sites_and_the_window_a_row():
    design = netlist(arrays=4, banks=8, window=45)
    assert fix(design) == 4 * 12 + 45 + 16 + 4
    everything = places(design, "fabric")
    assert len(set(everything)) == len(everything) == 4 * 12 + 45 + 16 + 4
    reach = []
    for array in range(4):
        own = places(design, f"array_{array}.")
        assert all(f"/Y{ARRAY_ROW}/" in place for place in own)
        reach.append((min(map(column, own)), max(map(column, own))))
    assert all(before[1] < after[0] for before, after in pairwise(reach))
    assert all(f"/Y{WINDOW_ROW}/" in place for place in places(design, "window"))
    assert not places(design, "loader")


def test_lanes_of_the_vector_unit_follow_each_other():
    """A part of the sum memory serves two lanes: it lies between their parameters."""
    design = netlist(arrays=4, banks=8, window=45)
    fix(design)
    lanes = [
        [column(place) for place in places(design, f"parameter_memory.part_{lane}_")]
        for lane in range(8)
    ]
    assert all(len(lane) == 2 for lane in lanes)
    assert all(max(a) < min(b) for a, b in pairwise(lanes))
    sums = [column(places(design, f"sum_memory.part_{n}_")[0]) for n in range(4)]
    assert sums == sorted(sums)
    assert min(lanes[0]) <= sums[0] < max(lanes[2])


def test_the_feeder_lies_between_the_banks():
    design = netlist(arrays=4, banks=8, window=0)
    fix(design)
    banks = sorted(map(column, places(design, "array_2.bank")))
    feeder = sorted(map(column, places(design, "array_2.feeder")))
    assert banks[3] < feeder[0]
    assert feeder[-1] < banks[4]


def test_what_a_row_has_no_room_for_is_left_to_the_placer():
    design = netlist(arrays=4, banks=10, window=SITES + 1)
    assert fix(design) == 16 + 4
    assert not places(design, "array_") + places(design, "window")
