"""The performance model against the RTL's counters, and against arithmetic."""

import numpy as np
import pytest
import torch

import espalier
from espalier.perf import Step, covered, estimate, simulate, trace
from espalier.spec.config import SMALL, TINY
from espalier.spec.interface import ENTRIES
from espalier.spec.isa import Opcode


def gru(inputs, hidden, config, *, bits=4, density=0.5, delta=True):
    torch.manual_seed(inputs + hidden)
    model = torch.nn.GRU(inputs, hidden, batch_first=True).eval()
    x = torch.randn(1, 12, inputs)
    recipe = espalier.Recipe(density=density, weight_bits=bits, delta=delta, config=config)
    small = espalier.compress(model, recipe, calibration=[x])
    return espalier.compile(small, x, config=config), x.numpy()


def traced(program, x):
    """Exact trace of one run on the reference, without the runs before it."""
    steps = []
    with espalier.open("reference", observer=lambda *step: steps.append(Step(*step))) as device:
        session = device.load(program)
        steps.clear()
        session.run(x)
    ends = [i for i, step in enumerate(steps) if step.instruction.opcode is Opcode.HALT]
    return steps[ends[-2] + 1 :] if len(ends) > 1 else steps


def counted(program, x):
    with espalier.open("rtl") as device:
        session = device.load(program)
        session.run(x)
        return session.counters


CASES = [
    (TINY, 5, 7, {}),
    (TINY, 20, 24, {"bits": 8}),
    (SMALL, 64, 64, {}),
    (SMALL, 100, 120, {"density": 1 / 8}),
    (SMALL, 33, 90, {"delta": False, "bits": 8}),
]


@pytest.mark.parametrize(
    ("config", "inputs", "hidden", "options"), CASES, ids=lambda v: getattr(v, "name", str(v))
)
def test_the_model_is_within_three_percent_of_the_rtl(config, inputs, hidden, options):
    program, x = gru(inputs, hidden, config, **options)
    timeline = simulate(config, traced(program, x))
    counters = counted(program, x)
    print(timeline.cycles, counters)
    assert timeline.words == counters["words"]
    assert timeline.read_beats == counters["read_beats"]
    assert timeline.write_beats == counters["write_beats"]
    assert timeline.cycles == pytest.approx(counters["cycles"], rel=0.03)


def test_a_trace_without_data_has_the_same_instructions_and_bytes():
    program, x = gru(20, 24, TINY)
    exact, expected = traced(program, x), list(trace(program, "run", x.shape[1]))
    assert [step.pc for step in expected] == [step.pc for step in exact]
    for a, b in zip(expected, exact, strict=True):
        if a.instruction.opcode in (Opcode.LOAD, Opcode.VECTOR):
            assert np.array_equal(a.work, b.work)
        elif a.instruction.opcode is Opcode.PRODUCT:
            assert (a.work >= b.work / 2).all(), "a column is at most visited twice"


def test_an_estimate_counts_operations_bytes_and_time():
    program, _ = gru(20, 24, TINY)
    few, many = estimate(program, steps=10), estimate(program, steps=20)
    per_step = (20 + 24) * 3 * 24
    assert few.dense_macs == 10 * per_step and many.dense_macs == 20 * per_step
    assert many.read_bytes == 2 * few.read_bytes
    assert few.cycles < many.cycles <= 2 * few.cycles
    assert few.microseconds == pytest.approx(few.cycles / 100)
    assert few.effective_gops == pytest.approx(2 * few.dense_macs / few.microseconds / 1000)
    assert 0 < few.busy <= 1
    assert estimate(program, steps=10, nonzero=0.2).cycles < few.cycles


@pytest.mark.parametrize("options", [{"steps": 0}, {"nonzero": 1.5}, {"nonzero": -0.1}])
def test_impossible_estimates_are_refused(options):
    program, _ = gru(5, 7, TINY)
    with pytest.raises(ValueError, match="must be"):
        estimate(program, **options)


def test_every_entry_can_be_traced():
    program, _ = gru(5, 7, TINY)
    for entry in ENTRIES:
        steps = list(trace(program, entry, 2))
        assert steps[-1].instruction.opcode is Opcode.HALT
        assert np.isfinite(simulate(TINY, steps).cycles)


def test_covered_cycles_are_counted_once():
    assert covered([(8, 9), (0, 4), (2, 6), (3, 5)]) == 7
    assert covered([]) == 0


def test_every_product_and_vector_has_its_interval():
    program, _ = gru(20, 24, TINY)
    steps = list(trace(program, "run", 3))
    timeline = simulate(TINY, steps)
    for opcode, intervals in (
        (Opcode.PRODUCT, timeline.products),
        (Opcode.VECTOR, timeline.vectors),
    ):
        issued = [
            at
            for step, at in zip(steps, timeline.issued, strict=True)
            if step.instruction.opcode is opcode
        ]
        assert len(intervals) == len(issued) > 3
        for at, (first, last) in zip(issued, intervals, strict=True):
            assert at <= first < last <= timeline.cycles
    # the vector unit does one thing at a time
    assert covered(timeline.vectors) == sum(last - first for first, last in timeline.vectors)
    assert round(covered(timeline.products)) == timeline.product_cycles
