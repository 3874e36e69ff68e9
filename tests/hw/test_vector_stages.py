"""Every stage of a vector lane against the contract's arithmetic, one element a cycle, edges
included."""

import random

import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from espalier.spec import numerics
from espalier.spec.isa import Combine as CombineChoice
from espalier.spec.isa import Finish as FinishChoice
from espalier.spec.isa import Scale
from espalier.spec.numerics import SHIFTS, VALUE_MAX, VALUE_MIN, clip
from espalier_hw.chip import ECP5
from espalier_hw.vector_sum import Accumulate, Requantize, Select
from espalier_hw.vector_value import ColumnInput, Combine, Finish, Function

COUNT = 3000
VALUE_EDGES = [
    VALUE_MIN,
    VALUE_MIN + 1,
    -32641,
    -32640,
    -129,
    -128,
    -1,
    0,
    1,
    127,
    128,
    32639,
    32640,
    VALUE_MAX - 1,
    VALUE_MAX,
]
SUM_EDGES = [-(1 << 26), -(1 << 26) + 1, -1, 0, 1, (1 << 26) - 1, *VALUE_EDGES]


def sat16(value):
    return clip(value, VALUE_MIN, VALUE_MAX)


def drawn(rng, edges, bits):
    """A signed number of `bits` bits: an edge, or of random magnitude."""
    if rng.random() < 0.3:
        return rng.choice(edges)
    return rng.randrange(-(1 << (bits - 1)), 1 << (bits - 1)) >> rng.randrange(bits)


def stream(dut, inputs, output, latency, platform=None):
    """Outputs of the elements whose input of `lead` cycles later than the first is `inputs[name] =
    (lead, values)`."""
    length = len(next(iter(inputs.values()))[1])
    results = []

    async def bench(ctx):
        for cycle in range(length + latency):
            for name, (lead, values) in inputs.items():
                ctx.set(getattr(dut, name), values[(cycle - lead) % length])
            if cycle >= latency:
                results.append(ctx.get(getattr(dut, output)))
            await ctx.tick()

    simulator = Simulator(Fragment.get(dut, platform))
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return results


@pytest.mark.parametrize("platform", [None, ECP5])
def test_requantize(platform):
    rng = random.Random(1)
    totals = [drawn(rng, SUM_EDGES, 27) for _ in range(COUNT)]
    scales = [rng.choice(list(Scale)) for _ in totals]
    rows = []
    for _ in totals:
        multiplier = rng.choice(
            [0, 1, (1 << 18) - 1, rng.randrange(1 << 18), rng.randrange(1 << rng.randrange(1, 19))]
        )
        bias = drawn(rng, [numerics.BIAS_MIN, numerics.BIAS_MAX, 7, 8, -8, -9], 20)
        rows.append({"multiplier": multiplier, "shift": rng.randrange(4), "bias": bias})
    got = stream(
        Requantize(),
        {
            "total": (0, totals),
            "parameter": (-1, rows),
            "scale": (-1, scales),
        },
        "value",
        Requantize.LATENCY,
        platform,
    )
    want = []
    for t, scale, p in zip(totals, scales, rows, strict=True):
        by = numerics.scale_by_scalar if scale is Scale.SCALAR else numerics.scale_sum
        scaled = by(t, p["multiplier"], SHIFTS[p["shift"]], p["bias"])
        want.append(sat16(scaled if scale else t))
    assert got[1:] == want[1:]  # the first one's row would come before the first cycle
    assert {VALUE_MIN, VALUE_MAX, 0} < set(want)


@pytest.mark.parametrize("platform", [None, ECP5])
def test_requantize_saturates_like_the_equation_at_the_cut(platform):
    """Floors around ±2^24, where the 25-bit saturation begins, with the biases that pull back the
    most."""
    cases = [
        (sign * (1 << 24) + offset, bias)
        for sign in (-1, 1)
        for offset in range(-24, 25)
        for bias in (numerics.BIAS_MIN, numerics.BIAS_MAX, 0)
    ]
    rows = [{"multiplier": 16, "shift": 0, "bias": bias} for _, bias in cases]
    totals = [floor for floor, _ in cases]
    got = stream(
        Requantize(),
        {
            "total": (0, totals),
            "parameter": (-1, rows),
            "scale": (-1, [Scale.SCALAR] * len(cases)),
        },
        "value",
        Requantize.LATENCY,
        platform,
    )
    want = [sat16(numerics.scale_by_scalar(t, 16, SHIFTS[0], bias)) for t, bias in cases]
    assert got[1:] == want[1:]


def test_accumulate():
    rng = random.Random(2)
    bits = 21
    drained = [drawn(rng, [-(1 << 20), (1 << 20) - 1], bits) for _ in range(COUNT)]
    operands = [drawn(rng, VALUE_EDGES, 16) for _ in drained]
    stored = [drawn(rng, SUM_EDGES, 27) for _ in drained]
    selects = [rng.choice(list(Select)) for _ in drained]
    joins = [rng.randrange(2) for _ in drained]
    for i in range(1, COUNT):  # a low plane always follows its high plane
        if joins[i]:
            selects[i - 1] = selects[i] = Select.DRAIN
    joins[0] = 0
    adds = [rng.randrange(2) for _ in drained]
    items = [drawn(rng, SUM_EDGES, 27) for _ in drained]
    got = stream(
        Accumulate(bits),
        {
            "select": (0, selects),
            "drained": (0, drained),
            "operand": (0, operands),
            "stored": (1, stored),
            "add": (1, adds),
            "joins": (0, joins),
            "item": (0, items),
        },
        "total",
        Accumulate.LATENCY,
    )
    want = []
    for i, select in enumerate(selects):
        source = {
            Select.ZERO: 0,
            Select.DRAIN: drained[i],
            Select.OPERAND: operands[i],
            Select.ITEM: items[i],
        }[select]
        total = source + joins[i] * 16 * drained[i - 1] + adds[i] * stored[i]
        want.append((total + (1 << 26)) % (1 << 27) - (1 << 26))
    assert got == want


@pytest.mark.parametrize("platform", [None, ECP5])
def test_combine(platform):
    rng = random.Random(3)
    values = [drawn(rng, VALUE_EDGES, 16) for _ in range(COUNT)]
    operands = [drawn(rng, VALUE_EDGES, 16) for _ in values]
    values[1:4], operands[1:4] = [VALUE_MIN] * 3, [VALUE_MIN] * 3
    choices = [rng.choice(list(CombineChoice)) for _ in values]
    choices[1:4] = [CombineChoice.MULTIPLY, CombineChoice.ADD, CombineChoice.AMPLIFY]
    got = stream(
        Combine(),
        {"value": (0, values), "operand": (-1, operands), "combine": (-1, choices)},
        "result",
        Combine.LATENCY,
        platform,
    )
    meaning = {
        CombineChoice.NONE: lambda v, _: v,
        CombineChoice.ADD: lambda v, o: sat16(v + o),
        CombineChoice.MULTIPLY: lambda v, o: sat16(numerics.multiply_values(v, o)),
        CombineChoice.AMPLIFY: lambda v, o: sat16(numerics.amplify(v, o)),
    }
    want = [meaning[choice](v, o) for v, o, choice in zip(values, operands, choices, strict=True)]
    assert got[1:] == want[1:]  # the first one's operand would come before the first cycle
    assert want[1:4] == [VALUE_MAX, VALUE_MIN, VALUE_MAX]


def test_function():
    rng = random.Random(4)
    values = [drawn(rng, VALUE_EDGES, 16) for _ in range(COUNT)]
    entries = [
        {"base": drawn(rng, VALUE_EDGES, 16), "slope": drawn(rng, VALUE_EDGES, 16)} for _ in values
    ]
    kinds = [rng.choice(["none", "relu", "table"]) for _ in values]
    inputs = {
        "value": (0, values),
        "relu": (0, [kind == "relu" for kind in kinds]),
        "table": (1, [kind == "table" for kind in kinds]),
        "entry": (1, entries),
    }
    got = stream(Function(), inputs, "result", Function.LATENCY)
    want = [
        {
            "none": v,
            "relu": max(v, 0),
            "table": sat16(numerics.table_value(v, entry["base"], entry["slope"])),
        }[kind]
        for v, entry, kind in zip(values, entries, kinds, strict=True)
    ]
    assert got == want
    assert stream(Function(), {"value": (0, values)}, "segment", 0) == [
        numerics.table_segment(v) for v in values
    ]


def test_finish():
    rng = random.Random(5)
    values, others, gates = ([drawn(rng, VALUE_EDGES, 16) for _ in range(COUNT)] for _ in range(3))
    choices = [rng.choice(list(FinishChoice)) for _ in values]
    takes = [rng.random() < 0.1 for _ in values]
    items = [rng.randrange(1 << 16) for _ in values]
    got = stream(
        Finish(),
        {
            "value": (0, values),
            "other": (-1, others),
            "gate": (0, gates),
            "finish": (0, choices),
            "take_item": (3, takes),
            "item": (3, items),
        },
        "result",
        Finish.LATENCY,
    )
    want = []
    for i, v in enumerate(values):
        finished = {
            FinishChoice.NONE: v,
            FinishChoice.INTERPOLATE: sat16(numerics.interpolate(v, gates[i], others[i])),
            FinishChoice.ADD: sat16(v + gates[i]),
        }[choices[i]]
        want.append((items[i] + (1 << 15)) % (1 << 16) - (1 << 15) if takes[i] else finished)
    assert got[1:] == want[1:]  # the first one's `other` would come before the first cycle
    assert {VALUE_MIN, VALUE_MAX} < set(want)


def test_column_input():
    values = [
        *range(VALUE_MIN, VALUE_MIN + 300),
        *range(-300, 300),
        *range(VALUE_MAX - 300, VALUE_MAX + 1),
    ]
    got = stream(ColumnInput(), {"value": (0, values)}, "column", ColumnInput.LATENCY)
    assert got == [clip(numerics.column_input(v), -127, 127) for v in values]
