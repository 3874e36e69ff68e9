"""The reference machine against small programs worked out by hand and plain loops, instruction by
instruction."""

import numpy as np
import pytest

from espalier.spec import isa, numerics
from espalier.spec.config import TINY
from espalier.spec.isa import (
    Combine,
    Finish,
    Function,
    Instruction,
    Mode,
    Opcode,
    Scale,
    Source,
    Store,
    Sums,
)
from espalier.spec.memory import ENTRY, PARAMETER, TABLE_ENTRY, Memory, beats, descriptor
from espalier.spec.registers import Fault
from espalier_sim.reference.machine import FaultRaised, Machine, UndefinedError

OUT = 0x4000


def machine(*program, size=0x8000):
    """A TINY machine with `program` (opcode, fields) loaded; HALT is added."""
    window = bytearray(size)
    instructions = [Instruction(op, fields) for op, fields in (*program, (Opcode.HALT, {}))]
    window[: 16 * len(instructions)] = b"".join(
        i.encode().to_bytes(16, "little") for i in instructions
    )
    result = Machine(TINY, window)
    result.start()
    result.load_program(len(instructions))
    return result, len(instructions)


def run(*program, setup=lambda m: None):
    m, length = machine(*program)
    setup(m)
    m.run(0, length)
    return m


def vector(**fields):
    return Opcode.VECTOR, {"count": 1, **fields}


def test_loops_nest_and_a_count_of_zero_skips():
    add = (Opcode.SET, {"target": 1, "use_source": 1, "source": 1, "value": 1})
    m = run(
        (Opcode.SET, {"target": 2, "value": 3}),
        (Opcode.LOOP, {"use_register": 1, "register": 2, "end": 5}),
        (Opcode.LOOP, {"count": 4, "end": 4}),
        add,
        (Opcode.END, {}),
        (Opcode.END, {}),
        (Opcode.LOOP, {"count": 0, "end": 8}),
        add,
        (Opcode.END, {}),
    )
    assert m.registers[1] == 12
    assert m.counters["instructions"] == 2 + 3 * (1 + 4 * 2 + 1) + 1 + 1


@pytest.mark.parametrize(
    "program",
    [[(Opcode.END, {})], [(Opcode.LOOP, {"count": 1, "end": 9})] * 5],
    ids=["END without LOOP", "five nested loops"],
)
def test_bad_control_flow_faults(program):
    with pytest.raises(FaultRaised) as caught:
        run(*program)
    assert caught.value.cause is Fault.ILLEGAL_INSTRUCTION


def test_an_unknown_opcode_faults_and_the_counter_stays_there():
    m, length = machine((Opcode.SET, {}))
    m.memories.program[1] = 0
    with pytest.raises(FaultRaised):
        m.run(0, length)
    assert m.pc == 1


@pytest.mark.parametrize("address", [0x8000, 0x7FF8 + 8, 4])
def test_a_load_outside_the_window_faults(address):
    load = (Opcode.LOAD, {"memory": Memory.ACTIVATIONS, "count": 3, "offset": address})
    with pytest.raises(FaultRaised) as caught:
        run(load)
    assert caught.value.cause is Fault.OUTSIDE_WINDOW and caught.value.address == address


def test_a_load_beyond_its_memory_is_undefined():
    with pytest.raises(UndefinedError, match="does not fit the activations memory of TINY"):
        run((Opcode.LOAD, {"memory": Memory.ACTIVATIONS, "address": 63, "count": 3}))


def test_activations_are_dealt_to_arrays_by_groups():
    def setup(m):
        m.window[OUT : OUT + 24] = bytes(
            [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0, 255, 254, 0, 0, 0, 0, 0, 0]
        )

    m = run(
        (Opcode.LOAD, {"memory": Memory.ACTIVATIONS, "address": 7, "count": 3, "offset": OUT}),
        setup=setup,
    )
    assert m.memories.activations[0, 7].tolist() == [1, 2, 3, 4]
    assert m.memories.activations[1, 7].tolist() == [5, 6, 7, 8]
    assert m.memories.activations[0, 8].tolist() == [-1, -2, 0, 0]
    assert m.counters["read_beats"] == 2 + 2  # program of two instructions, three items


def test_load_increments_its_register():
    load = (
        Opcode.LOAD,
        {"memory": Memory.VECTOR, "count": 1, "register": 3, "offset": OUT, "increment": -16},
    )
    m, length = machine(load, load)
    m.registers[3] = 16
    m.run(0, length)
    assert m.registers[3] == 2**32 - 16


def test_items_fill_vector_sums_parameters_and_tables():
    def setup(m):
        m.window[OUT : OUT + 8] = np.array([1, -2, 3, -4], "<i2").tobytes()
        m.window[OUT + 16 : OUT + 24] = np.array([-5, 6], "<i4").tobytes()
        word = PARAMETER.pack({"multiplier": 9, "shift": 3, "bias": -7})
        m.window[OUT + 32 : OUT + 40] = word.to_bytes(8, "little")
        m.window[OUT + 48 : OUT + 56] = TABLE_ENTRY.pack({"base": -3, "slope": 2}).to_bytes(
            8, "little"
        )

    def load(memory, where, address):
        return Opcode.LOAD, {
            "memory": memory,
            "address": address,
            "count": 1,
            "offset": OUT + where,
        }

    m = run(
        load(Memory.VECTOR, 0, 2),
        load(Memory.SUMS, 16, 3),
        load(Memory.PARAMETERS, 32, 4),
        load(Memory.TABLES, 48, 130),
        setup=setup,
    ).memories
    assert m.vector[2].tolist() == [1, -2, 3, -4]
    assert m.sums[3].tolist() == [-5, 6, 0, 0]
    assert [int(m.parameters[name][4, 0]) for name in ("multiplier", "shift", "bias")] == [
        9,
        26,
        -7,
    ]
    assert (m.tables["base"][130], m.tables["slope"][130]) == (-3, 2)


def test_weights_and_descriptors_are_read_in_quads():
    """Array a, word w, lane i holds digit i - 4 and slot 8·a + w."""

    def setup(m):
        raw = b""
        for a in range(2):
            for w in range(3):
                quad = sum(
                    ENTRY.pack({"digit": i - 4, "slot": 8 * a + w}) << (10 * i) for i in range(4)
                )
                raw += quad.to_bytes(16, "little")
        raw += descriptor(TINY).pack({"base": 1, "count2": 5}).to_bytes(16, "little") * 2
        m.window[OUT : OUT + len(raw)] = raw

    m = run(
        (Opcode.LOAD, {"memory": Memory.WEIGHTS, "address": 10, "count": 3, "offset": OUT}),
        (Opcode.LOAD, {"memory": Memory.DESCRIPTORS, "address": 2, "count": 1, "offset": OUT + 96}),
        setup=setup,
    ).memories
    assert m.digits[:, 10:13].tolist() == [[[-4, -3, -2, -1]] * 3] * 2
    assert m.entry_slots[:, 10:13, 0].tolist() == [[0, 1, 2], [8, 9, 10]]
    assert m.bases[:, 2].tolist() == [1, 1] and m.counts[0, 2].tolist() == [0, 0, 5, 0]
    assert beats(TINY, Memory.WEIGHTS, 3) == 6


def sparse_state(m, rng):
    """Random weights, descriptors with counts 0..3, activations and last-sent values over the whole
    range."""
    m.digits[:] = rng.integers(-8, 8, m.digits.shape)
    m.entry_slots[:] = rng.integers(0, 32, m.digits.shape)
    m.counts[:] = rng.integers(0, 4, m.counts.shape)
    m.bases[:] = rng.integers(0, 200, m.bases.shape)
    m.activations[:] = rng.integers(-127, 128, m.activations.shape) * (
        rng.random(m.activations.shape) < 0.6
    )
    m.last[:] = rng.integers(-127, 128, m.last.shape)


@pytest.mark.parametrize("mode", [Mode.PLAIN, Mode.DELTA, Mode.COMMIT])
@pytest.mark.parametrize("threshold", [0, 40])
def test_a_product_is_what_plain_loops_say(mode, threshold):
    m, length = machine(
        (
            Opcode.PRODUCT,
            {
                "mode": mode,
                "threshold": threshold,
                "groups": 5,
                "activations": 3,
                "last": 9,
                "descriptors": 2,
            },
        )
    )
    sparse_state(m.memories, np.random.default_rng(threshold))
    s = m.memories
    slots, last = s.slots.copy(), s.last.copy()
    visits = words = skipped = 0
    for a in range(2):
        for g in range(5):
            word = int(s.bases[a, 2 + g])
            for column in range(4):
                x, sent = int(s.activations[a, 3 + g, column]), int(s.last[a, 9 + g, column])
                delta = x if mode is Mode.PLAIN else x - sent
                k = int(s.counts[a, 2 + g, column])
                if delta != 0 if mode is Mode.PLAIN else abs(delta) > threshold:
                    times = 2 if abs(delta) > 127 else 1
                    visits, words = visits + times, words + times * k
                    for w in range(word, word + k):
                        for lane in range(4):
                            slots[a, s.entry_slots[a, w, lane], lane] += (
                                s.digits[a, w, lane] * delta
                            )
                    if mode is Mode.COMMIT:
                        last[a, 9 + g, column] = x
                else:
                    skipped += 1
                word += k
    m.run(0, length)
    assert np.array_equal(s.slots, slots) and np.array_equal(s.last, last)
    assert [m.counters[name] for name in ("visits", "words", "skipped")] == [visits, words, skipped]


def test_slots_wrap_at_twenty_bits():
    def setup(m):
        m.memories.slots[0, 3, 1] = (1 << 19) - 1
        m.memories.digits[0, 0] = 1
        m.memories.entry_slots[0, 0] = 3
        m.memories.counts[0, 0, 0] = 1
        m.memories.activations[0, 0, 0] = 1

    m = run((Opcode.PRODUCT, {"groups": 1}), setup=setup)
    assert m.memories.slots[0, 3].tolist() == [1, -(1 << 19), 1, 1]


def test_clear_forgets_what_was_sent():
    m = run(
        (Opcode.PRODUCT, {"mode": Mode.CLEAR, "groups": 2, "last": 1}),
        setup=lambda m: m.memories.last.fill(5),
    )
    assert m.memories.last[:, :, 0].tolist() == [[5, 0, 0] + [5] * 61] * 2


def test_drain_joins_planes_sums_arrays_and_clears():
    def setup(m):
        m.memories.slots[:, 4] = [[1, 2, 3, 4], [10, 20, 30, 40]]
        m.memories.slots[:, 6] = [[1, 1, 1, 1], [0, 0, 0, -1]]

    m = run(
        vector(
            source=Source.DRAIN_PLANES, drain=4, plane_stride=2, write_vector=1, vector_address=9
        ),
        setup=setup,
    )
    assert m.memories.vector[9].tolist() == [27, 38, 49, 44]
    assert not m.memories.slots.any()


@pytest.mark.parametrize(
    ("sums", "total", "stored"),
    [(Sums.NONE, 5, 70), (Sums.ADD, 75, 70), (Sums.ACCUMULATE, 75, 75), (Sums.WRITE, 5, 5)],
)
def test_sum_memory(sums, total, stored):
    def setup(m):
        m.memories.vector[0] = 5
        m.memories.sums[2] = 70

    m = run(
        (Opcode.SET, {"target": 4, "value": OUT}),
        vector(source=Source.OPERAND, sums=sums, sum_address=2, store=Store.SUMS, register=4),
        setup=setup,
    )
    assert np.frombuffer(m.window, "<i4", 4, OUT).tolist() == [total] * 4
    assert m.memories.sums[2].tolist() == [stored] * 4


def test_every_stage_in_order():
    """One element through scale, multiply, table, interpolate, worked out with the spec's own
    functions."""

    def setup(m):
        s = m.memories
        s.vector[0:4] = [[3000] * 4, [-9000] * 4, [16384] * 4, [0] * 4]
        s.parameters["multiplier"][1], s.parameters["shift"][1], s.parameters["bias"][1] = (
            700,
            8,
            33,
        )
        table = np.array(numerics.make_table(*numerics.FUNCTIONS["tanh"]))
        s.tables["base"][128:], s.tables["slope"][128:] = table.T

    m = run(
        (Opcode.SET, {"target": 4, "value": OUT}),
        vector(
            source=Source.OPERAND,
            scale=Scale.ROWS,
            parameters=1,
            combine=Combine.MULTIPLY,
            operand1=1,
            finish=Finish.INTERPOLATE,
            operand2=2,
            function=Function.TABLE1,
            write_columns=1,
            column_address=5,
            store=Store.VALUES,
            register=4,
        ),
        setup=setup,
    )
    v = numerics.scale_sum(3000, 700, 8, 33)
    v = numerics.multiply_values(v, -9000)
    base, slope = numerics.make_table(*numerics.FUNCTIONS["tanh"])[numerics.table_segment(v)]
    v = numerics.interpolate(numerics.table_value(v, base, slope), 16384, 3000)
    assert np.frombuffer(m.window, "<i2", 8, OUT).tolist() == [v] * 4 + [0] * 4
    assert m.memories.activations[0, 5].tolist() == [numerics.column_input(v)] * 4
    assert m.written == [(OUT, bytes(m.window[OUT : OUT + 16]))]


def test_slots_last_from_run_to_run_unless_a_fault_left_them_dirty():
    m, _ = machine()
    m.memories.slots[:] = 5
    m.start()
    assert m.memories.slots.all()
    m.dirty = True
    m.start()
    assert not m.memories.slots.any() and not m.dirty


def test_relu_and_saturation():
    def setup(m):
        m.memories.vector[0] = [-5, 7, 32767, -32768]
        m.memories.vector[1] = [0, 0, 1, -1]

    fields = {"source": Source.OPERAND, "combine": Combine.ADD, "operand1": 1, "write_vector": 1}
    assert run(vector(**fields), setup=setup).memories.vector[0].tolist() == [-5, 7, 32767, -32768]
    relu = run(vector(**fields, function=Function.RELU), setup=setup)
    assert relu.memories.vector[0].tolist() == [0, 7, 32767, 0]


def test_the_observer_sees_the_work():
    seen = []
    m, length = machine((Opcode.PRODUCT, {"groups": 1}), vector())
    m.observer = lambda pc, instruction, work: seen.append((pc, instruction.opcode, work))
    m.memories.activations[1, 0, 0] = 3
    m.memories.counts[1, 0, 0] = 2
    m.run(0, length)
    assert [(pc, op) for pc, op, _ in seen] == [
        (0, Opcode.PRODUCT),
        (1, Opcode.VECTOR),
        (2, Opcode.HALT),
    ]
    assert seen[0][2].tolist() == [[0, 0], [1, 2]] and seen[1][2].tolist() == [1, 0]
    assert isa.disassemble(isa.decode(m.memories.program[1])) == "VECTOR count=1 source=zero"


def scaled_by_scalar(*program, setup=lambda m: None):
    """What `program` and then a VECTOR that scales chunk 0, (100, 200, 300, 400), by scalar 5 give,
    and the machine."""

    def operands(m):
        setup(m)
        m.memories.vector[0] = [100, 200, 300, 400]

    by_scalar = {"scale": Scale.SCALAR, "parameters": 5, "write_vector": 1, "vector_address": 1}
    m = run(*program, vector(source=Source.OPERAND, **by_scalar), setup=operands)
    return m.memories.vector[1].tolist(), m


def test_a_scalar_lies_in_parameter_memory_with_a_bias_in_units():
    address = isa.reduction_address(5, 3)
    reduction = vector(source=Source.OPERAND, sums=Sums.MAXIMUM, sum_address=address)
    result, m = scaled_by_scalar(reduction)
    assert result == [-2400, -1600, -800, 0]
    written = {
        name: values[TINY.first_scalar + 5] for name, values in m.memories.parameters.items()
    }
    assert {name: set(values) for name, values in written.items()} == {
        "multiplier": {1 << 11},
        "shift": {8},
        "bias": {-3200},
    }


def test_a_load_into_a_scalars_chunk_writes_a_scalar_for_each_lane():
    def setup(m):
        for lane in range(4):
            row = {"multiplier": 256, "shift": 0, "bias": lane - 1}
            word = PARAMETER.pack(row).to_bytes(8, "little")
            m.window[OUT + 8 * lane : OUT + 8 * lane + 8] = word

    chunk = {"address": TINY.first_scalar + 5, "count": 4, "offset": OUT}
    load = (Opcode.LOAD, {"memory": Memory.PARAMETERS, **chunk})
    assert scaled_by_scalar(load, setup=setup)[0] == [99, 200, 301, 402]
