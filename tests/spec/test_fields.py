"""One declaration is encoder, decoder and range check: round trips, refusals, and hand-made
words."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.spec import checks, isa
from espalier.spec.config import PRESETS, TINY
from espalier.spec.fields import Field, Layout
from espalier.spec.isa import LAYOUTS, Instruction, Opcode, Sums
from espalier.spec.memory import ENTRY, PARAMETER, Memory, beats, descriptor, load_fits


def legal(field):
    return (
        st.sampled_from([int(c) for c in field.choices])
        if field.choices
        else st.integers(field.low, field.high)
    )


@pytest.mark.parametrize(
    "layout",
    [*LAYOUTS.values(), ENTRY, PARAMETER, descriptor(TINY)],
    ids=lambda layout: layout.name,
)
@given(data=st.data())
def test_unpack_inverts_pack(layout, data):
    values = {field.name: data.draw(legal(field)) for field in layout.fields}
    assert layout.unpack(layout.pack(values)) == values


def test_pack_by_hand():
    assert ENTRY.pack({"digit": -8, "slot": 31}) == 0b0_11111_1000
    assert (
        PARAMETER.pack({"multiplier": 1, "shift": 2, "bias": -1}) == (0xFFFFF << 20) | (2 << 18) | 1
    )


@pytest.mark.parametrize(
    ("name", "value"), [("digit", 8), ("digit", -9), ("slot", 32), ("slot", -1)]
)
def test_pack_refuses_values_outside(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in .* not {value}"):
        ENTRY.pack({name: value})


def test_pack_refuses_unknown_names():
    with pytest.raises(ValueError, match="has no field 'slots'"):
        ENTRY.pack({"slots": 1})


def test_unpack_refuses_unused_bits():
    with pytest.raises(ValueError, match="unused bits must be 0"):
        ENTRY.unpack(1 << 9)


def test_a_layout_must_fit_its_word():
    with pytest.raises(ValueError, match="fields take 9 bits, more than 8"):
        Layout("x", 8, (Field("a", 9, ""),))


@pytest.mark.parametrize("opcode", [0, 9, 15])
def test_unknown_opcodes_are_refused(opcode):
    with pytest.raises(ValueError, match="opcode must be one of"):
        isa.decode(opcode)


def test_unnamed_waits_mean_no_wait():
    assert isa.decode(Instruction(Opcode.HALT).encode())["wait_store"] == isa.NO_WAIT


def test_disassembly_names_what_matters():
    text = isa.disassemble(Instruction(Opcode.PRODUCT, {"groups": 4, "mode": 2, "wait_load": 0}))
    assert text == "PRODUCT [load<=0] mode=commit groups=4"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"source": 1, "count": 33}, "drain must lie in 0..31"),
        ({"count": 1, "source": 2, "operand0": 128}, "operand0 must lie in 0..127, not 128..128"),
        ({"count": 1, "function": 6}, "must be one of 2 tables"),
    ],
)
def test_check_refuses_vectors_outside(fields, message):
    with pytest.raises(ValueError, match=message):
        checks.check(
            Instruction(Opcode.VECTOR, {f.name: 0 for f in LAYOUTS[Opcode.VECTOR].fields} | fields),
            TINY,
        )


@pytest.mark.parametrize("fields", [{"sums": Sums.MASS}, {"bounded": 1}])
def test_check_refuses_reductions_where_there_are_none(fields):
    small = replace(TINY, reductions=False)
    values = {f.name: 0 for f in LAYOUTS[Opcode.VECTOR].fields} | {"count": 1} | fields
    checks.check(Instruction(Opcode.VECTOR, values), TINY)
    with pytest.raises(ValueError, match="needs reductions, which TINY does not have"):
        checks.check(Instruction(Opcode.VECTOR, values), small)


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda c: c.name)
def test_beats_are_what_the_items_take(config):
    assert beats(config, Memory.PARAMETERS, 5) == 3
    assert beats(config, Memory.DESCRIPTORS, 3) == 2 * config.arrays
    quads = 7 * config.lanes // 4
    assert beats(config, Memory.WEIGHTS, 7) == config.arrays * -(-quads // config.quads_per_beat)
    assert load_fits(config, Memory.WEIGHTS, 0, config.weight_depth)
    assert not load_fits(config, Memory.WEIGHTS, 1, config.weight_depth)
    assert not load_fits(config, Memory.VECTOR, 0, 0)
